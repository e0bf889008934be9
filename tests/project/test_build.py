"""What was built, what the build says when it cannot, and the package without anything compiled."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import linscope_cuda as ls
from linscope_cuda.operators import native as _native
from linscope_cuda.operators.table import OPERATORS
from linscope_cuda.study import info

ROOT = Path(__file__).parents[2]
INSTALLED = str(Path(ls.__file__).parents[1])


def run(*command, cwd=ROOT, **environment):
    env = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=env, capture_output=True, text=True
    )


def has_kernel(name, key):
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"linscope::{name}", key)


def test_kernels_are_registered_for_what_was_built():
    assert _native.is_compiled("cpu"), "the tests want the compiled operators"
    for name in OPERATORS:
        assert has_kernel(name, "CPU")
        assert has_kernel(name, "CUDA") == _native.is_compiled("cuda")


@pytest.mark.skipif(torch.version.cuda is None, reason="torch is a CPU-only build")
def test_a_demanded_cuda_build_is_there():
    if os.environ.get("LINSCOPE_CUDA") != "1":
        pytest.skip("LINSCOPE_CUDA=1 does not demand CUDA kernels here")
    from linscope_cuda import _cuda

    assert _cuda.cuda_version == torch.version.cuda and "9.0" in _cuda.architectures


class TestSetup:
    def test_a_wrong_choice_is_named(self):
        done = run("setup.py", "--version", LINSCOPE_CUDA="maybe")
        assert done.returncode != 0 and "must be 0, 1 or auto, not 'maybe'" in done.stderr

    def test_demanded_kernels_without_a_toolkit(self, tmp_path):
        done = run("setup.py", "--version", LINSCOPE_CUDA="1", CUDA_HOME=str(tmp_path))
        missing = "CPU-only build" if torch.version.cuda is None else "no CUDA toolkit was found"
        assert done.returncode != 0 and missing in done.stderr

    def test_no_torch(self, tmp_path):
        (tmp_path / "torch.py").write_text("raise ImportError('no torch')")
        done = run("setup.py", "--version", PYTHONPATH=str(tmp_path))
        assert done.returncode != 0
        assert "torch is not installed" in done.stderr and "Traceback" not in done.stderr

    def test_no_compiler(self):
        done = run("setup.py", "--version", CXX="no-such-compiler", LINSCOPE_CUDA="0")
        assert done.returncode == 0 and "built without compiled operators" in done.stderr
        done = run("setup.py", "--version", CXX="no-such-compiler", LINSCOPE_CUDA="1")
        assert done.returncode != 0 and "no C++ compiler" in done.stderr


UNCOMPILED = """
import sys, torch
sys.path.insert(0, {tests!r})
sys.modules["linscope_cuda._cpu"] = sys.modules["linscope_cuda._cuda"] = None
import linscope_cuda as ls
from networks import Spellings, build, example
assert not any(map(ls.operators.native.is_compiled, ("cpu", "cuda")))
op = ls.LinearInterpreter(build(Spellings), example(Spellings))
assert op.dottest() < 1e-12
torch.save((op.todense(), op.residual, op.tape.nbytes), {out!r})
"""


def test_everything_runs_without_compiled_operators(tmp_path):
    from networks import Spellings, build, example

    out = str(tmp_path / "dense.pt")
    code = UNCOMPILED.format(tests=str(ROOT / "tests"), out=out)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    op = ls.LinearInterpreter(build(Spellings), example(Spellings))
    dense, residual, nbytes = torch.load(out, weights_only=True)
    torch.testing.assert_close(dense, op.todense(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(residual, op.residual, rtol=1e-12, atol=1e-14)
    assert nbytes == op.tape.nbytes


# Kernels of a build that does not go with the torch that is here.
UNLOADABLE = """
import sys, warnings, torch
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "linscope_cuda._cuda":
            raise ImportError("libcudart.so.99: cannot open shared object file")
sys.meta_path.insert(0, Broken())
torch.version.cuda = "99.0"
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import linscope_cuda as ls
    from linscope_cuda.study import info
assert any("CUDA operators cannot be loaded" in str(w.message) for w in said), said
assert ls.operators.native.is_compiled("cpu") and not ls.operators.native.is_compiled("cuda")
assert "libcudart.so.99" in info.report(info.info())
"""


def test_kernels_for_another_cuda_are_left_out_with_a_word(tmp_path):
    done = run("-c", UNLOADABLE, cwd=tmp_path, PYTHONPATH=INSTALLED)
    assert done.returncode == 0, done.stderr


# A processor without AVX2, as torch is told to see one.
OLD_PROCESSOR = """
import sys, json, torch
import linscope_cuda as ls
from linscope_cuda.operators import native as _native
from linscope_cuda.operators.table import OPERATORS
from linscope_cuda.study import info, selftest
assert _native.KERNELS["cpu"] == "this processor has no AVX2"
assert "linscope_cuda._cpu" not in sys.modules
has = torch._C._dispatch_has_kernel_for_dispatch_key
kernels = [[has(f"linscope::{name}", key) for key in ("CPU", "CUDA")] for name in OPERATORS]
checks = selftest.selftest("cpu")
print(json.dumps({
    "kernels": kernels, "CUDA": _native.is_compiled("cuda"), "info": info.report(info.info()),
    "ok": all(check.ok for check in checks),
    "said": selftest.report(checks, "cpu"), "compiled": selftest.facts(checks, "cpu")["compiled"],
}))
try:
    torch.ops.linscope.relu_frozen(torch.ones(1, 9), torch.zeros(1, 1, dtype=torch.uint8), 0, False)
except ValueError as error:
    assert "does not belong" in str(error)
else:
    raise AssertionError("the reference followed a decision of another shape")
"""

x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="only x86 has processors without AVX2"
)


@x86
def test_a_processor_without_avx2_keeps_what_is_not_of_the_cpu(tmp_path):
    # Not from the sources: what is compiled lies where the package is installed.
    capability = {"ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": INSTALLED}
    done = run("-c", OLD_PROCESSOR, cwd=tmp_path, **capability)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(not cpu and cuda == found["CUDA"] for cpu, cuda in found["kernels"])
    assert found["CUDA"] == _native.is_compiled("cuda")
    assert found["ok"] and not found["compiled"] and "not compiled" in found["said"]
    assert re.search(r"operators on cpu +plain torch, slower: .* no AVX2", found["info"])
    assert "no AVX2" not in info.report(info.info())


@x86
@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump reads the machine code")
def test_what_every_processor_loads_has_no_instruction_of_avx():
    for device, has in (("cuda", False), ("cpu", True)):
        library = _native.KERNELS[device]
        if isinstance(library, str):  # none was built
            continue
        code = subprocess.run(
            ["objdump", "-d", "--no-show-raw-insn", library.__file__],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert bool(re.search(r"%[yz]mm\d|\tv[a-z]+[0-9a-z]* .*%xmm", code)) == has
