"""What tools/machine_code.py finds in machine code: seeded spills and narrow accesses, and none in
the kernels as they are. That every kernel is clean on every architecture is the tool's own check.
"""

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import machine_code  # noqa: E402

pytestmark = pytest.mark.skipif(
    machine_code.missing() is not None, reason=str(machine_code.missing())
)

ONE_KERNEL = {
    "gate": """#include "gate.cuh"
namespace linscope {
template __global__ void gate_scope_backward_kernel<GeluGate, float, 4>(
    BatchShape, const float*, const float*, float*);
}
""",
    "norm": """#include "instance_norm.cuh"
namespace linscope {
template __global__ void instance_norm_on_chip_kernel<float, 4>(
    NormShape, const float*, FinishMoments<float>, float*);
}
""",
}


@pytest.fixture
def faults(tmp_path):
    """What is found in one kernel, after replacing text in a copy of csrc."""

    def found(kernel, file=None, old="", new=""):
        csrc = tmp_path / "csrc"
        shutil.copytree(machine_code.CSRC, csrc)
        if file:
            text = (csrc / file).read_text()
            assert old in text
            (csrc / file).write_text(text.replace(old, new))
        source = tmp_path / "one.cu"
        source.write_text(ONE_KERNEL[kernel])
        (compiled,) = machine_code.kernels(90, source, csrc)
        return "\n".join(compiled.faults())

    return found


@pytest.mark.parametrize("kernel", ONE_KERNEL)
def test_nothing_is_found_in_kernels_as_they_are(faults, kernel):
    assert faults(kernel) == ""


def test_a_spill_is_found(faults):
    # Eight blocks leave 32 registers to a thread.
    bound = "kResidentWithSums = sizeof(T) == 8 ? 2 : 3"
    found = faults("gate", "launch.h", bound, "kResidentWithSums = 8")
    assert "bytes of registers" in found and "has a stack frame" in found


def test_a_stack_frame_is_found(faults):
    # An array with an index that is known only when the kernel runs lies in memory.
    sums = "wide through_gate[VEC] = {};"
    indexed = (
        "wide through_gate[64] = {};"
        "for (int j = 0; j < 64; ++j) through_gate[j * shape.samples % 64] += j;"
    )
    assert "has a stack frame" in faults("gate", "gate.cuh", sums, indexed)


def test_loads_of_32_bits_are_found(faults):
    word = "typename WordOf<sizeof(T) * VEC>::type"
    parts = "for (int k = 0; k < VEC; ++k) pack.v[k] = static_cast<const volatile T*>(p)[k];"
    found = faults(
        "norm",
        "launch.h",
        f"return {{*reinterpret_cast<const {word}*>(p)}};",
        f"Pack<T, VEC> pack; {parts} return {{__builtin_bit_cast({word}, pack)}};",
    )
    assert "loads no pack of 128 bits at once" in found and "loads less than a pack in" in found


def test_one_load_of_32_bits_among_wide_ones_is_found(faults):
    wide = "wide through_gate[VEC] = {};"
    one = f"{wide} if (grad_y[at + 1] > 0) return;"
    found = faults("gate", "gate.cuh", wide, one)
    assert "loads less than a pack in 1 places, 0 are due" in found


def test_stores_of_32_bits_are_found(faults):
    # What nvcc makes of a plain assignment in the loop over a probe's plane.
    kept = "__stwb(reinterpret_cast<word_t*>(p), __builtin_bit_cast(word_t, pack));"
    found = faults("norm", "launch.h", kept, "*reinterpret_cast<Pack<T, VEC>*>(p) = pack;")
    assert "stores less than a pack in" in found


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("scope_kernel<Piecewise<Relu<float>, half, 8, uint8>, half, 8>", 128),
        ("scope_kernel<ScopedGate<SelfGated<Logistic>, double, 2>, double, 2>", 128),
        ("reduce_kernel<ReduceMoments<bfloat16, true, 4>, FinishMoments<float>, true, 4>", 64),
        ("max_pool2d_scope_kernel<Usual<3, 2>, true, 2, float, uint8>", 64),
        ("gate_scope_backward_kernel<TanhGate, float, 1>", 32),
        ("finish_kernel<Moments<float>, FinishMoments<float> >", 0),
    ],
)
def test_a_kernel_says_what_its_packs_are(name, bits):
    assert kernel(name=name).pack == bits


def test_a_kernel_without_a_stated_occupancy_is_found(faults):
    found = faults("gate", "gate.cuh", "(kBlock, kResidentWithSums<T>)", "(kBlock)")
    assert "states no resident blocks in its launch bound" in found


def test_a_kernel_that_nobody_compiles_is_found():
    some = [k for k in machine_code.kernels(90) if k.function != "max_pool2d_frozen_kernel"]
    assert machine_code.uncompiled(some) == ["max_pool2d_frozen_kernel: not in every_kernel.cu"]


def kernel(**changes):
    clean = machine_code.Kernel(
        "gate_frozen_kernel<float, 1>", 90, 256, 4, 40, 0, 0, 0, {32: 2}, {32: 1}
    )
    return clean._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "blocks"),
    [
        ({}, 6),  # NVIDIA's occupancy calculator: 40 registers of 65536, 256 threads
        ({"registers": 32}, 8),
        ({"registers": 33}, 6),
        ({"registers": 255}, 1),
        ({"architecture": 75, "registers": 32}, 4),  # 1024 threads
        ({"architecture": 86, "registers": 32}, 6),  # 1536 threads
        ({"shared": 64 * 1024}, 3),  # of 228 KiB, 1 KiB of every block reserved
        ({"threads": 32, "registers": 16}, 32),
    ],
)
def test_resident_blocks(changes, blocks):
    assert kernel(**changes).blocks == blocks


def test_the_page_was_written_by_the_tool():
    assert machine_code.written_by()
    text = machine_code.DOCUMENT.read_text()
    assert all(f"sm_{a}" in text for a in machine_code.ARCHITECTURES)
