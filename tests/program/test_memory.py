"""What a run of a program holds, as predicted and as measured, and the budget products keep to."""

import os
import subprocess
import sys
import weakref

import pytest
import torch
import torch.nn.functional as F
from lines import traced
from networks import Image, Line, Spellings, build, example
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import linscope_cuda as ls
from linscope_cuda.program import Program
from linscope_cuda.program.memory import peak_bytes
from linscope_cuda.zoo import networks

MIB = 2**20
aten = torch.ops.aten


class Meter(TorchDispatchMode):
    """The most bytes of storages that were alive at a time, of those made within; what convolutions
    lay out anew is added, as large as all that they act on.
    """

    def __init__(self, *known: Tensor):
        super().__init__()
        self.known = {t.untyped_storage()._cdata for t in known}
        self.alive: dict[int, int] = {}
        self.bytes = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        for tensor in made:
            self._add(tensor.untyped_storage())
        scratch = 0
        if func is aten.convolution.default:
            scratch = sum(t.nbytes for t in (*made, *args) if isinstance(t, Tensor))
        self.peak = max(self.peak, self.bytes + scratch)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.alive and key not in self.known:
            self.alive[key] = storage.nbytes()
            self.bytes += self.alive[key]
            weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self.bytes -= self.alive.pop(key)


def measured(line, x):
    line(x)  # what is made once, and kept
    with Meter(x, *line.constants()) as meter:
        line(x)
    return meter.peak


def test_the_meter_counts_what_lives_at_once():
    with Meter() as meter:
        a = torch.ones(500)
        b = a[:10]
        del a
        assert meter.bytes == 2000
        del b
    assert meter.bytes == 0 and meter.peak == 2000
    with Meter() as meter:
        torch.zeros(1000).relu().add(1)
    assert meter.peak == 8000
    known = torch.zeros(1000)
    with Meter(known) as meter:
        known[3:].relu()
    assert meter.peak == 3988


def branches(x):
    h = x.cumsum(1)
    return h.flip(1).roll(1, 1) + h


WEIGHT = torch.ones(2, 4, 1, dtype=torch.float64)

# Functions of 1000 numbers, of 8000 bytes, and what they hold at a time.
PEAKS = {
    "one step": (lambda x: x.flip(1), 8000),
    "two steps": (lambda x: x.flip(1).roll(1, 1), 16000),
    "three steps": (lambda x: x.flip(1).roll(1, 1).flip(1), 16000),
    "a copy of what the input's memory shows": (lambda x: x.view(10, 100).t(), 8000),
    "a view of the input": (lambda x: x.view(10, 100)[3:4].flip(1), 800),
    "a view keeps all of its memory": (lambda x: x.flip(1).view(10, 100)[3:4], 8000),
    "a part": (lambda x: x.flip(1)[:, :500].roll(1, 1), 12000),
    "a scale, written over": (lambda x: x.flip(1) * 2, 8000),
    "a scale of the input": (lambda x: x * 2, 8000),
    "a scale of what is read again": (lambda x: torch.cat([(h := x.flip(1)) * 2, h], 1), 32000),
    "joined": (lambda x: torch.cat([x.flip(1), x.roll(1, 1)], 1), 32000),
    "a sum, written over": (branches, 24000),
    "a wider dtype": (lambda x: x.float().double(), 12000),
    "repeated without memory": (lambda x: x.flip(1).expand(1, 1000), 8000),
    "split": (lambda x: sum(p.flip(1) for p in x.flip(1).split(500, 1)), 16000),
    "a convolution lays out what it acts on": (
        lambda x: F.conv1d(x.view(1, 4, 250), WEIGHT),
        4000 + 8000 + 4000 + WEIGHT.nbytes,
    ),
}


@pytest.mark.parametrize("name", PEAKS)
def test_small_programs_hold_what_one_counts_by_hand(name):
    function, want = PEAKS[name]
    x = torch.ones(1, 1000, dtype=torch.float64)
    program = Program(traced(function, x)[0])
    assert program.peak_bytes == want
    assert measured(program._one, x) == want


def edsr():
    torch.manual_seed(0)
    return networks.EDSR(blocks=3, features=8, scale=2).double().eval().requires_grad_(False)


def residual():
    """Scales of channels, a branch that waits, a norm, pools."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
            self.norm = nn.BatchNorm2d(8)

        def forward(self, x):
            h = F.max_pool2d(F.relu(self.first(x)), 2)
            h = h + F.relu6(self.norm(self.second(h)))
            return F.avg_pool2d(F.instance_norm(h), 2).flatten(1)

    torch.manual_seed(0)
    return Net().double().eval().requires_grad_(False)


NETWORKS = {
    "Spellings": lambda: (build(Spellings), example(Spellings)),
    "Image": lambda: (build(Image), example(Image)),
    "Line": lambda: (build(Line), example(Line)),
    "edsr": lambda: (edsr(), torch.randn(1, 3, 12, 10).double()),
    "residual": lambda: (residual(), torch.randn(1, 3, 12, 16).double()),
}


@pytest.mark.parametrize("probes", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_prediction_is_what_is_measured(name, probes):
    model, x0 = NETWORKS[name]()
    op = ls.LinearInterpreter(model, x0, check=False)
    x = torch.randn(probes, *op.input_shape, dtype=torch.float64)
    u = torch.randn(probes, *op.output_shape, dtype=torch.float64)
    predicted = []
    for program, given in ((op.program.linear, x), (op.program.T, u)):
        program(given)
        line = program._one if probes == 1 else program._several[probes]
        predicted.append(peak_bytes(line))
        assert predicted[-1] == pytest.approx(measured(line, given), rel=0.1)
    if probes == 1:
        assert op.source.bytes_of_a_probe() == max(predicted)
    else:  # several probes share the weights, and what convolutions make of them
        assert max(predicted) <= probes * op.source.bytes_of_a_probe()


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
