"""What launches depend on: the alignment of each buffer by itself, and limits that are there for
the sake of speed, lowered so that small tensors meet them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from emulator import build
from emulator.client import emulator
from emulator.operators import DTYPES, SHARED_LIMIT, Operators
from linscope_cuda.operators import reference

pytestmark = pytest.mark.skipif(build.missing() is not None, reason=str(build.missing()))

USUAL, OTHER = ([2, 2], [2, 2], [0, 0], [1, 1]), ([3, 2], [1, 2], [1, 0], [2, 1])

Calls = Iterator[tuple[str, Callable]]


def normal(*shape: int, seed: int = 0, channels_last: bool = False) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.contiguous(memory_format=reference.memory_format(channels_last))


def calls(dtype: torch.dtype, channels_last: bool, references: int = 2, probes: int = 2) -> Calls:
    """Every operator, as a function of what has operators: the emulator, or the reference."""
    size = (references * (1 + probes), 8, 4, 8)
    x, g = (normal(*size, seed=s, channels_last=channels_last).to(dtype) for s in (0, 1))
    wide = reference.wide_dtype(dtype)
    weight, bias = (normal(8, seed=s).to(wide) for s in (2, 3))
    mean, scale, shift = (normal(references, 8, seed=s).to(wide) for s in (4, 5, 6))
    _, bits = reference.relu_scope(x, references, 0.25, channels_last)
    _, pieces = reference.clamp_scope(x, references, -0.5, 0.5, channels_last)
    _, gate = reference.gate_scope(x, references, 2)
    n, last = references, channels_last
    yield "relu_scope", lambda o: o.relu_scope(x, n, 0.25, last)
    yield "relu_frozen", lambda o: o.relu_frozen(g, bits, 0.25, last)
    yield "clamp_scope", lambda o: o.clamp_scope(x, n, -0.5, 0.5, last)
    yield "clamp_frozen", lambda o: o.clamp_frozen(g, pieces, -0.5, 0.5, last)
    yield "gate_scope", lambda o: o.gate_scope(x, n, 2)
    yield "gate_frozen", lambda o: o.gate_frozen(g, gate, 0.5)
    yield "gate_scope_backward", lambda o: o.gate_scope_backward(g, x, n, 2)
    yield "instance_norm_scope", lambda o: o.instance_norm_scope(x, n, weight, bias, 0.1)
    yield "instance_norm_frozen", lambda o: o.instance_norm_frozen(x, mean, scale, shift)
    yield (
        "instance_norm_scope_backward",
        lambda o: o.instance_norm_scope_backward(g, x, mean, scale, weight),
    )
    for window in (USUAL, OTHER):
        y, winners = reference.max_pool2d_scope(x, n, *window, False)
        yield "max_pool2d_scope", lambda o, w=window: o.max_pool2d_scope(x, n, *w, False)
        yield (
            "max_pool2d_frozen",
            lambda o, w=window, d=winners: o.max_pool2d_frozen(g, d, *w),
        )
        yield (
            "max_pool2d_frozen_transpose",
            lambda o, w=window, u=y, d=winners: o.max_pool2d_frozen_transpose(u, d, [4, 8], *w),
        )


def tensors(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def close(got: Tensor | tuple, want: Tensor | tuple, what: object) -> None:
    for g, w in zip(tensors(got), tensors(want), strict=True):
        # Sums in another order, a rounding or two.
        eps = torch.finfo(g.dtype).eps if g.dtype.is_floating_point else 0
        torch.testing.assert_close(
            g, w, rtol=16 * eps, atol=64 * eps, msg=lambda text: f"{what}\n{text}"
        )


formats = pytest.mark.parametrize("channels_last", [False, True])


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@formats
def test_each_buffer_may_lie_at_any_address(dtype: torch.dtype, channels_last: bool) -> None:
    fast = emulator("fast")
    for limits in (None, {"kOnChip": 0}):
        for name, call in calls(dtype, channels_last):
            aligned = Operators(fast, limits=limits)
            want = call(aligned)
            for buffer in aligned.buffers:
                got = call(Operators(fast, misaligned=buffer, limits=limits))
                close(got, want, (name, buffer))


@formats
@pytest.mark.parametrize("size", [2, 3])
def test_windows_that_differ_from_a_usual_one_in_a_single_number(
    channels_last: bool, size: int
) -> None:
    operators = Operators(emulator("fast"))
    x = normal(2, 4, 9, 11, channels_last=channels_last).float()
    for number in range(6):
        sides = [size, size, 2, 2, 1, 1]
        sides[number] += 1
        window = sides[:2], sides[2:4], [0, 0], sides[4:]
        got = operators.max_pool2d_scope(x, 1, *window, False)
        y, winners = reference.max_pool2d_scope(x, 1, *window, False)
        assert torch.equal(got[0], y) and torch.equal(got[1], winners), window
        assert torch.equal(operators.max_pool2d_frozen(x, winners, *window), y), window
        back = operators.max_pool2d_frozen_transpose(y, winners, [9, 11], *window)
        want = reference.max_pool2d_frozen_transpose(y, winners, [9, 11], *window)
        close(back, want, window)


@pytest.mark.parametrize("build_name", ["fast", "trace"])
@formats
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_a_block_takes_several_probes_where_blocks_are_many(
    build_name: str, channels_last: bool, blocks: int
) -> None:
    operators = Operators(emulator(build_name), limits={"kManyBlocks": blocks})
    for name, call in calls(torch.float32, channels_last, probes=5):
        close(call(operators), call(reference), name)
        if name in ("relu_scope", "clamp_scope", "gate_scope", "max_pool2d_scope"):
            (launch,) = operators.result.launches  # a tile of elements, for every so many-th probe
            assert launch.blocks == blocks, name


@pytest.mark.parametrize("build_name", ["fast", "trace"])
@formats
@pytest.mark.parametrize("blocks", [1, 3, 8, 384])
def test_planes_are_reduced_in_as_many_parts_as_there_are_blocks(
    build_name: str, channels_last: bool, blocks: int
) -> None:
    for channels, height, width in ((1, 19, 137), (3, 19, 137), (4, 32, 64)):
        x = normal(3, channels, height, width, channels_last=channels_last).float() + 100
        g = normal(3, channels, height, width, seed=1, channels_last=channels_last).float()
        limits = {"kOnChip": 0, "kReducingBlocks": blocks}
        operators = Operators(emulator(build_name), limits=limits)
        got = operators.instance_norm_scope(x, 1, None, None, 0.1)
        reduced = operators.result.launches
        wide = x.double()
        want = reference.instance_norm_scope(wide, 1, None, None, 0.1)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)
        _, mean, rstd = (t.float() for t in want)
        got = operators.instance_norm_scope_backward(g, x, mean, rstd, None)
        want = reference.instance_norm_scope_backward(
            g.double(), wide, mean.double(), rstd.double(), None
        )
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=2e-3)
        # Reduced, merged if a plane has several parts, applied.
        tiles = 1 if reference.is_channels_last(x) else channels
        assert len(reduced) == (3 if reduced[0].blocks > tiles else 2)
        assert reduced[0].blocks <= max(blocks, tiles)
        if tiles == channels and width % 2:  # a part is of at least 1024 elements
            assert reduced[0].blocks == channels * min(3, max(1, blocks // channels))


def on_chip(probes: int, limits: dict[str, int], shared_limit: int = SHARED_LIMIT) -> bool:
    operators = Operators(emulator("fast"), limits=limits, shared_limit=shared_limit)
    x = normal(2 * (1 + probes), 3, 12, 20).float()
    got = operators.instance_norm_scope(x, 2, None, None, 0.1)
    close(got, reference.instance_norm_scope(x, 2, None, None, 0.1), limits)
    launches = operators.result.launches
    assert launches[0].blocks == 6
    assert launches[0].shared_bytes == (12 * 20 * 4 if len(launches) == 1 else 0)
    return len(launches) == 1


def test_planes_on_chip_are_no_larger_than_what_is_there() -> None:
    plane = 12 * 20 * 4
    assert on_chip(1, {"kOnChip": plane}) and not on_chip(1, {"kOnChip": plane - 1})
    # Two blocks share what a block may have.
    assert on_chip(1, {}, 2 * plane) and not on_chip(1, {}, 2 * plane - 2)
    assert on_chip(2, {"kFewProbes": 2}) and not on_chip(3, {"kFewProbes": 2})


def test_no_block_is_without_work() -> None:
    fast = Operators(emulator("fast"))
    for packs in (1, 511, 512, 513, 1024, 1025):  # of four elements; two packs to each thread
        x = normal(1, 4 * packs).float()
        fast.relu_scope(x, 1, 0.0, False)
        assert fast.result.launches == [(-(-packs // 512), 256, 0)]
        fast.gate_frozen(x, x, 0.0)
        assert fast.result.launches == [(-(-packs // 512), 256, 0)]
        fast.gate_scope_backward(x, x, 1, 2)
        assert fast.result.launches == [(-(-packs // 256), 256, 0)]
        _, bits = reference.relu_scope(x, 1, 0.0, False)
        fast.relu_frozen(x, bits, 0.0, False)
        assert fast.result.launches == [(-(-packs // 1024), 256, 0)]
        image = normal(1, 1, 1, packs).float()
        fast.max_pool2d_scope(image, 1, [1, 1], [1, 1], [0, 0], [1, 1], False)
        assert fast.result.launches == [(-(-packs // 256), 256, 0)]
