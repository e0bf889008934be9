"""What is kept for an image, what products hold beside it, and the budget they are cut to."""

import os
import subprocess
import sys

import pytest
import torch
from linscope_cuda.frozen.memory import Meter, peak_bytes
from networks import Image, Spellings, build, example
from torch import nn

import linscope_cuda as ls
from linscope_cuda.zoo import networks

MIB = 2**20


def held(build_graph) -> tuple[int, object]:
    """Bytes alive after a graph is built, and the graph."""
    with Meter() as meter:
        graph = build_graph()
    return meter.bytes, graph


@pytest.mark.parametrize("samples", [1, 4])
def test_a_graph_of_the_transpose_holds_no_activation(samples):
    torch.manual_seed(0)
    model = networks.EDSR(blocks=12, features=16, scale=2).eval().requires_grad_(False)
    x0 = torch.randn(1, 3, 24, 32)
    op = ls.LinearInterpreter(model, x0, check=False)
    ours, (probe, y) = held(lambda: op._graph(samples))
    largest = y.nbytes * 16 // 3  # the upscaled features
    # The probe, the product, and one stand-in for the inputs of all convolutions.
    assert ours <= probe.nbytes + y.nbytes + largest + 1000

    x = torch.randn(samples, 3, 24, 32)
    torchs, _ = held(lambda: model(x.clone().requires_grad_()))
    assert torchs > 5 * ours


def test_every_layer_that_keeps_its_input_in_torch_keeps_nothing_here():
    class Pools(nn.Module):
        def forward(self, x):
            h = nn.functional.avg_pool2d(x, 2) + nn.functional.adaptive_avg_pool2d(x, 8)
            return nn.functional.interpolate(h, scale_factor=2, mode="bilinear") * 3

    x0 = torch.randn(1, 32, 16, 16)
    op = ls.LinearInterpreter(Pools(), x0, check=False)
    ours, (probe, y) = held(lambda: op._graph(1))
    assert ours <= probe.nbytes + y.nbytes + 100


def test_the_meter_counts_what_lives_at_once():
    assert peak_bytes(lambda: torch.zeros(1000).relu().add(1)) == 8000
    assert peak_bytes(lambda: [torch.zeros(1000) for _ in range(5)]) == 20000
    assert peak_bytes(lambda: torch.zeros(1000).view(10, 100)[3]) == 4000
    with Meter() as meter:
        a = torch.ones(500)
        b = a[:10]
        del a
        assert meter.bytes == 2000
        del b
    assert meter.bytes == 0 and meter.peak == 2000


@pytest.mark.parametrize("kind", [Spellings, Image])
@pytest.mark.parametrize("storage_kind", ["tape", "none"])
def test_batches_are_cut_to_the_budget(kind, storage_kind):
    model, x0 = build(kind), example(kind)
    one = ls.LinearInterpreter(model, x0, storage=storage_kind, max_bytes=1)
    assert one.max_batch == 1
    many = ls.LinearInterpreter(model, x0, storage=storage_kind, max_bytes=20 * MIB)
    more = ls.LinearInterpreter(model, x0, storage=storage_kind, max_bytes=40 * MIB)
    assert many.max_batch and more.max_batch and many.max_batch > 4
    assert abs(more.max_batch - 2 * many.max_batch) <= 2
    many.max_batch = 3
    assert many.max_batch == 3


PROGRAM = """
import sys, torch, linscope_cuda as ls
from linscope_cuda.zoo import networks

def high_water(field="VmHWM"):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

torch.set_num_threads(1)
torch.manual_seed(0)
model = networks.EDSR(blocks=24, features=32, scale=2).eval().requires_grad_(False)
x0 = torch.randn(1, 3, 64, 64)
op = ls.LinearInterpreter(model, x0, max_bytes=int(sys.argv[2]))
op.transpose(op.output)
samples = 3 * op.max_batch
u = torch.randn(samples, *op.output_shape)
open("/proc/self/clear_refs", "w").write("5")
before = high_water("VmRSS")
if sys.argv[1] == "ours":
    op.transpose(u)
else:
    probe = torch.zeros(op.max_batch, 3, 64, 64, requires_grad=True)
    torch.autograd.grad(model(probe), probe, u[: op.max_batch])
print(high_water() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is read from /proc")
def test_resident_memory_stays_within_the_budget():
    budget = 96 * MIB

    def peak(whose):
        command = [sys.executable, "-c", PROGRAM, whose, str(budget)]
        # glibc gives freed memory back at once, so that resident is what lives.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return int(done.stdout)

    ours = peak("ours")
    assert ours < budget
    assert peak("torch's") > 3 * ours
