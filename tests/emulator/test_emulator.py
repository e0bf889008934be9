"""Every CUDA kernel, run by the emulator, against linscope_cuda.reference and the CPU operators.

Values are compared with the reference in float64; decisions bit for bit with the CPU operators.
Every launch is also watched: any race, fault or read of what was never written fails the test.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from emulator import build
from emulator.client import emulator
from emulator.operators import DTYPES, Operators
from linscope_cuda.operators import reference

pytestmark = pytest.mark.skipif(build.missing() is not None, reason=str(build.missing()))

cpu = torch.ops.linscope

# Of a value of about 1, after one rounding to the dtype (float16 and bfloat16) or a few.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}


class Case(NamedTuple):
    channels: int
    height: int
    width: int
    references: int
    probes: int
    large: bool = False  # too slow for the trace

    @property
    def samples(self) -> int:
        return self.references * (1 + self.probes)


CASES = [
    Case(1, 1, 1, 1, 0),  # one pixel
    Case(3, 1, 1, 2, 1),  # planes of one pixel
    Case(5, 7, 3, 1, 3),  # odd
    Case(4, 4, 4, 3, 1),  # the widest accesses
    Case(33, 3, 5, 2, 0),  # channels beyond a warp
    Case(2, 8, 40, 2, 3),  # several blocks, planes beyond a block
    Case(3, 31, 33, 1, 1, large=True),  # an odd plane beyond a block
    Case(8, 16, 72, 3, 1, large=True),
]

BUILDS = ("fast", "asan", "trace")


class Run(NamedTuple):
    case: Case
    operators: Operators
    channels_last: bool
    seed: int


def runs(build_name: str) -> Iterator[Run]:
    """Every case, contiguous and channels_last, aligned and not, in changing orders of threads."""
    for case in CASES:
        if case.large and build_name == "trace":
            continue
        for number in range(4):
            order = (number + CASES.index(case)) % 4
            operators = Operators(emulator(build_name), bool(number % 2), order)
            yield Run(case, operators, number >= 2, number)


def batch(run: Run, dtype: torch.dtype, samples: int | None = None, special: bool = True) -> Tensor:
    """Numbers with ties between them, and some of those that are treated apart."""
    case = run.case
    generator = torch.Generator().manual_seed(run.seed)
    shape = (case.samples if samples is None else samples, case.channels, case.height, case.width)
    x = (torch.randn(shape, generator=generator) * 8).round() / 4
    if special:
        odd = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 0.0, 1e-30, -60000.0])
        chosen = torch.randint(0, 16 * len(odd), shape, generator=generator)
        x = torch.where(chosen < len(odd), odd[chosen % len(odd)], x)
    return formatted(x.to(dtype), run.channels_last)


def formatted(x: Tensor, channels_last: bool) -> Tensor:
    return x.contiguous(memory_format=reference.memory_format(channels_last))


def same_bits(a: Tensor, b: Tensor, what: object) -> None:
    """Equal, -0.0 and 0.0 told apart; any NaN is a NaN."""
    assert a.shape == b.shape and a.dtype == b.dtype, what
    if a.dtype.is_floating_point:
        assert torch.equal(a.isnan(), b.isnan()), what
        words = {8: torch.int64, 4: torch.int32, 2: torch.int16}[a.dtype.itemsize]
        a, b = (t.contiguous().nan_to_num(nan=1.0).view(words) for t in (a, b))
    assert torch.equal(a, b), what


def close(a: Tensor, truth: Tensor, what: object, factor: float = 1) -> None:
    tolerance = TOLERANCE[a.dtype] * factor
    torch.testing.assert_close(
        a.double(),
        truth.to(a.dtype).double(),  # what is beyond the dtype is infinite
        rtol=tolerance,
        atol=tolerance,
        equal_nan=True,
        msg=lambda text: f"{what}\n{text}",
    )


each_build_and_dtype = [
    pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch.")),
    pytest.mark.parametrize("build_name", BUILDS),
]


def everywhere(test):
    for mark in each_build_and_dtype:
        test = mark(test)
    return test


@everywhere
@pytest.mark.parametrize("slope", [0.0, 0.25])
def test_relu(build_name: str, dtype: torch.dtype, slope: float) -> None:
    for run in runs(build_name):
        x, last = batch(run, dtype), run.channels_last
        y, decision = run.operators.relu_scope(x, run.case.references, slope, last)
        wanted = cpu.relu_scope(x, run.case.references, slope, last)
        same_bits(decision, wanted[1], run)
        same_bits(y, wanted[0], run)
        same_bits(y, reference.relu_scope(x, run.case.references, slope, last)[0], run)
        u = batch(run, dtype, 3 * run.case.references)
        frozen = run.operators.relu_frozen(u, decision, slope, last)
        same_bits(frozen, cpu.relu_frozen(u, decision, slope, last), run)
        same_bits(run.operators.relu_frozen_(u, decision, slope, last), frozen, run)


@everywhere
def test_clamp(build_name: str, dtype: torch.dtype) -> None:
    for run in runs(build_name):
        x, last = batch(run, dtype), run.channels_last
        y, decision = run.operators.clamp_scope(x, run.case.references, -0.5, 1.25, last)
        wanted = cpu.clamp_scope(x, run.case.references, -0.5, 1.25, last)
        same_bits(decision, wanted[1], run)
        same_bits(y, wanted[0], run)
        same_bits(y, reference.clamp_scope(x, run.case.references, -0.5, 1.25, last)[0], run)
        u = batch(run, dtype, 3 * run.case.references)
        for low, high in ((-0.5, 1.25), (0.0, 0.0)):
            frozen = run.operators.clamp_frozen(u, decision, low, high, last)
            same_bits(frozen, cpu.clamp_frozen(u, decision, low, high, last), run)
            same_bits(run.operators.clamp_frozen_(u, decision, low, high, last), frozen, run)


@everywhere
def test_gates(build_name: str, dtype: torch.dtype) -> None:
    for run in runs(build_name):
        for kind, name in enumerate(reference.GATES):
            x, what = batch(run, dtype), (name, run)
            y, gate = run.operators.gate_scope(x, run.case.references, kind)
            truth = reference.gate_scope(x.double(), run.case.references, kind)
            close(gate, truth[1], what)
            # A probe meets the gate as it was rounded for the decision.
            shift = reference.GATES[name].shift
            probes = reference.gate_frozen(x.double(), gate.double(), shift)
            close(y[: run.case.references], truth[0][: run.case.references], what)
            close(y[run.case.references :], probes[run.case.references :], what)
            frozen = run.operators.gate_frozen(x, gate, 0.5)
            close(frozen, reference.gate_frozen(x.double(), gate.double(), 0.5), what)


@everywhere
def test_gates_backward(build_name: str, dtype: torch.dtype) -> None:
    for run in runs(build_name):
        for kind, name in enumerate(reference.GATES):
            # Away from 0, where the paper's mask and its slope have no bound.
            x = batch(run, dtype, special=False)
            x = torch.where(x.abs() < 0.25, 0.5, x).to(dtype)
            g = batch(run._replace(seed=7), dtype, special=False)
            grad = run.operators.gate_scope_backward(g, x, run.case.references, kind)
            truth = reference.gate_scope_backward(g.double(), x.double(), run.case.references, kind)
            close(grad, truth, (name, run), factor=4)


# kernel, stride, padding, dilation, ceil_mode
WINDOWS = [
    ([1, 1], [1, 1], [0, 0], [1, 1], False),
    ([2, 2], [2, 2], [0, 0], [1, 1], False),
    ([3, 3], [2, 2], [1, 1], [1, 1], True),
    ([3, 2], [1, 2], [1, 0], [2, 1], False),
    ([17, 16], [3, 5], [8, 8], [1, 1], False),  # 272 pixels: a decision takes more than a byte
]


def fits(case: Case, window: tuple) -> bool:
    kernel, _, padding, dilation, _ = window
    size = (case.height, case.width)
    return all(
        n + 2 * p >= d * (k - 1) + 1 and (d == 1 or n > d)
        for n, k, p, d in zip(size, kernel, padding, dilation, strict=True)
    )


@everywhere
def test_max_pool2d(build_name: str, dtype: torch.dtype) -> None:
    tested = set()
    for run in runs(build_name):
        for index, (kernel, stride, padding, dilation, ceil_mode) in enumerate(WINDOWS):
            if not fits(run.case, WINDOWS[index]):
                continue
            tested.add(index)
            window = kernel, stride, padding, dilation
            what, references = (window, run), run.case.references
            x = batch(run, dtype)
            y, decision = run.operators.max_pool2d_scope(
                x, references, kernel, stride, padding, dilation, ceil_mode
            )
            wanted = cpu.max_pool2d_scope(x, references, *window, ceil_mode)
            same_bits(decision, wanted[1], what)
            same_bits(y, wanted[0], what)
            truth = reference.max_pool2d_scope(x, references, *window, ceil_mode)
            same_bits(decision, truth[1], what)
            frozen = run.operators.max_pool2d_frozen(x, decision, kernel, stride, padding, dilation)
            same_bits(frozen, truth[0], what)

            u = batch(run, dtype, special=False)[:, :, :1, :1].expand_as(y) + y.nan_to_num(0, 0, 0)
            u, size = formatted(u, run.channels_last), list(x.shape[2:])
            transposed = run.operators.max_pool2d_frozen_transpose(
                u, decision, size, kernel, stride, padding, dilation
            )
            exact = reference.max_pool2d_frozen_transpose(u.double(), decision, size, *window)
            close(transposed, exact, what)
    assert tested == set(range(len(WINDOWS))) or build_name == "trace"


@pytest.mark.parametrize("build_name", BUILDS)
def test_max_pool2d_of_numbers_from_anywhere(build_name: str) -> None:
    """A number of no tap, or of a tap beside the image, takes 0 and gives nothing."""
    for run in runs(build_name):
        for window in WINDOWS:
            if not fits(run.case, window):
                continue
            x = batch(run, torch.float32, special=False)
            y, decision = cpu.max_pool2d_scope(x, run.case.references, *window)
            few, numbers = torch.Generator().manual_seed(run.seed), torch.iinfo(decision.dtype)
            for high in (numbers.max + 1, 2 * window[0][0] * window[0][1]):
                low = numbers.min if high > numbers.max else 0
                any_ = torch.randint(low, high, decision.shape, generator=few).to(decision.dtype)
                stray = torch.rand(decision.shape, generator=few) < 0.5
                decision = torch.where(stray, any_, decision)
                decision = formatted(decision, run.channels_last)
                args, size = (decision, *window[:4]), list(x.shape[2:])
                what = (window, run)
                wanted = reference.max_pool2d_frozen(x, *args)
                same_bits(run.operators.max_pool2d_frozen(x, *args), wanted, what)
                same_bits(cpu.max_pool2d_frozen(x, *args), wanted, what)
                back = reference.max_pool2d_frozen_transpose(y.double(), decision, size, *args[1:])
                for operators in (run.operators, cpu):
                    transposed = operators.max_pool2d_frozen_transpose(y, decision, size, *args[1:])
                    close(transposed, back, what)


def norm_parameters(
    case: Case, dtype: torch.dtype
) -> Iterator[tuple[Tensor | None, Tensor | None]]:
    channel, dtype = torch.arange(case.channels), reference.wide_dtype(dtype)
    yield None, None
    yield (1.001 + channel / 8).to(dtype), (channel / 4 - 1).to(dtype)


def double(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.double()


@everywhere
@pytest.mark.parametrize("on_chip", [True, False])
def test_instance_norm(build_name: str, dtype: torch.dtype, on_chip: bool) -> None:
    for run in runs(build_name):
        if not on_chip:
            run.operators.shared_limit = 0
        for weight, bias in norm_parameters(run.case, dtype):
            x = batch(run, dtype, special=False)
            x[:, 0] += 100  # a mean that would cancel all digits of a sum of squares
            if run.case.samples > 1:
                x[-1, 0, 0, 0] = float("nan")
            y, mean, rstd = run.operators.instance_norm_scope(
                x, run.case.references, weight, bias, 0.01
            )
            wide = x.double()
            truth = reference.instance_norm_scope(
                wide, run.case.references, double(weight), double(bias), 0.01
            )
            close(mean, truth[1], run, factor=4)
            close(rstd, truth[2], run, factor=4)
            # Of x - mean, digits are lost as many as the mean is larger.
            close(y, truth[0], run, factor=40)
            wanted = cpu.instance_norm_scope(x, run.case.references, weight, bias, 0.01)
            close(mean, wanted[1], run)
            close(rstd, wanted[2], run)


@everywhere
def test_instance_norm_frozen(build_name: str, dtype: torch.dtype) -> None:
    for run in runs(build_name):
        x, planes = batch(run, dtype), (run.case.references, run.case.channels)
        wide = reference.wide_dtype(dtype)
        scale = torch.arange(1, planes[0] * planes[1] + 1, dtype=wide).reshape(planes) / 16
        for mean, shift in ((None, None), (2 * scale, -scale)):
            y = run.operators.instance_norm_frozen(x, mean, scale, shift)
            truth = reference.instance_norm_frozen(
                x.double(), double(mean), scale.double(), double(shift)
            )
            close(y, truth, run)


@everywhere
def test_instance_norm_backward(build_name: str, dtype: torch.dtype) -> None:
    for run in runs(build_name):
        x = batch(run, dtype, special=False)
        g = batch(run._replace(seed=7), dtype, special=False)
        _, mean, rstd = reference.instance_norm_scope(x, run.case.references, None, None, 0.1)
        for weight, _ in norm_parameters(run.case, dtype):
            result = run.operators.instance_norm_scope_backward(g, x, mean, rstd, weight)
            truth = reference.instance_norm_scope_backward(
                g.double(), x.double(), mean.double(), rstd.double(), double(weight)
            )
            for a, b in zip(result, truth, strict=True):
                close(a, b, run, factor=4)


def test_portable_fibers_run_the_same() -> None:
    for run in runs("portable"):
        x = batch(run, torch.float32, special=False)
        portable = run.operators.instance_norm_scope(x, run.case.references, None, None, 0.01)
        fast = Operators(emulator("fast"), run.operators.misaligned)
        wanted = fast.instance_norm_scope(x, run.case.references, None, None, 0.01)
        for a, b in zip(portable, wanted, strict=True):
            same_bits(a, b, run)
