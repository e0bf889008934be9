"""What the compiled operators themselves refuse: torch.ops.linscope, without the public functions'
checks before it. Every operator with good arguments of which one is wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from linscope_cuda.operators import reference
from linscope_cuda.operators.table import OPERATORS

NATIVE = torch.ops.linscope
SQUARE = ([2, 2], [2, 2], [0, 0], [1, 1])


def good() -> dict[str, list[Any]]:
    """Arguments that every operator takes, of 2 references."""
    x = torch.randn(4, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    _, bits = reference.relu_scope(x, 2, 0.0, False)
    _, pieces = reference.clamp_scope(x, 2, -0.5, 0.5, False)
    y, winners = reference.max_pool2d_scope(x, 2, *SQUARE, False)
    planes, weight = torch.ones(2, 3), torch.ones(3)
    return {
        "relu_scope": [x, 2, 0.25, False],
        "relu_frozen": [x, bits, 0.25, False],
        "relu_frozen_": [x, bits, 0.25, False],
        "clamp_scope": [x, 2, -0.5, 0.5, False],
        "clamp_frozen": [x, pieces, -0.5, 0.5, False],
        "clamp_frozen_": [x, pieces, -0.5, 0.5, False],
        "gate_scope": [x, 2, 3],
        "gate_frozen": [x, x[:2], 0.5],
        "gate_scope_backward": [x, x, 2, 3],
        "max_pool2d_scope": [x, 2, *SQUARE, False],
        "max_pool2d_frozen": [x, winners, *SQUARE],
        "max_pool2d_frozen_transpose": [y, winners, [6, 4], *SQUARE],
        "instance_norm_scope": [x, 2, weight, weight, 0.1],
        "instance_norm_frozen": [x, planes, planes, planes],
        "instance_norm_scope_backward": [x, x, planes, planes, weight],
    }


def arguments(name: str) -> list[str]:
    return [argument.name for argument in getattr(NATIVE, name).default._schema.arguments]


# The tensor whose samples are the batch.
BATCH = {"gate_scope_backward": "x", "max_pool2d_frozen_transpose": "u"}
# The tensor whose rows are the references.
ROWS = {"gate_frozen": "gate", "instance_norm_frozen": "scale"}
ROWS |= {"instance_norm_scope_backward": "mean"}


def wrong() -> Iterator[tuple[str, str, Any, str]]:
    """(operator, argument, what is wrong instead of it, a word of the refusal)."""
    for name, args in good().items():
        names = arguments(name)
        batch = BATCH.get(name, "x")
        rows = ROWS.get(name, "decision" if "decision" in names else "")
        x = args[names.index(batch)]
        yield name, batch, x.int(), "unsupported dtype Int"
        no_image = name == "max_pool2d_frozen"  # whose size is looked at first
        yield name, batch, x[0, 0, 0, 0], "must be (samp" if no_image else "must hold samples"
        yield name, batch, x[:3], "a batch of 3 samples is no multiple of 2"
        if "references" in names:
            yield name, batch, x[:0], "holds no reference"
            for number in (0, -1, -2, 3):
                yield name, "references", number, f"no multiple of {number} references"
        elif name == "instance_norm_scope_backward":
            yield name, batch, x[:0], "holds no reference"
        if rows:
            yield name, rows, args[names.index(rows)].flatten()[0], "a row for each reference"
        for argument, value in zip(names, args, strict=True):
            if not isinstance(value, Tensor) or argument == batch:
                continue
            beside = f"{argument} must be"
            other = torch.int64 if value.dtype == torch.uint8 else torch.float64
            yield name, argument, value.to(other), beside
            # One row less would be another number of references.
            short = value.narrow(-1, 0, value.shape[-1] - 1)
            word = "does not take" if argument == "decision" and value.dim() == 4 else beside
            yield name, argument, short, word
            if argument != rows and value.dim() > 1:
                yield name, argument, value[:1], beside
        if "kind" in names:
            for number in (-1, 6):
                yield name, "kind", number, f"no gate has the number {number}"
        if name.startswith("max_pool"):
            yield name, batch, torch.ones(4, 3, 8), "must be (samples, channels, height, width)"
            for argument in ("kernel", "stride", "padding", "dilation"):
                yield name, argument, [1], "must be (height, width)"
                yield name, argument, [1, 1, 1], "must be (height, width)"
            for argument in ("kernel", "stride", "dilation"):
                for bad in (0, -1, 2**31):
                    yield name, argument, [1, bad], "must be positive and less than 2^31"
                    yield name, argument, [bad, 1], "must be positive and less than 2^31"
            for bad in (-1, 2):
                yield name, "padding", [0, bad], "at most half of the window"
                yield name, "padding", [bad, 0], "at most half of the window"
            yield name, "kernel", [2**16, 2**15], "2^31 pixels or more"
            yield name, "stride", [2**30, 1], "goes beyond 2^31"
            yield name, "stride", [1, 2**30], "goes beyond 2^31"
        if name.startswith("instance_norm"):
            yield name, batch, torch.ones(4), "must be (samples, channels, *spatial)"
    yield "clamp_scope", "min", 0.75, "min must not be greater than max, got 0.75 and 0.5"
    yield "clamp_scope", "min", float("nan"), "min must not be greater than max"
    yield "max_pool2d_scope", "x", torch.ones(4, 3, 0, 4), "holds no pixel"
    yield "max_pool2d_scope", "kernel", [7, 1], "without any pixel"
    yield "max_pool2d_scope", "kernel", [1, 5], "without any pixel"
    winners = good()["max_pool2d_frozen"][1]
    for name in ("max_pool2d_frozen", "max_pool2d_frozen_transpose"):
        yield name, "decision", winners[:, 0], "must be (references, channels, height, width)"
        yield name, "decision", winners.int(), "decision must be"
        yield name, "decision", winners[:, :2], "does not belong"
        yield name, "stride", [1, 2], "does not take an image"
        yield name, "stride", [2, 1], "does not take an image"
    # Without samples there is nothing to do, but channels are counted in an int.
    many, few = torch.zeros(1).expand(2, 2**31, 2, 2), torch.zeros(0, 1, 2, 2)
    yield "max_pool2d_scope", "x", many, "must be (samples, channels, height, width)"
    for name in ("max_pool2d_frozen", "max_pool2d_frozen_transpose"):
        none = few.expand(0, 2**31, 2, 2)
        yield name, BATCH.get(name, "x"), none, "must be (samples, channels, height, width)"
    yield "max_pool2d_frozen_transpose", "size", [6], "size must be (height, width)"
    yield "max_pool2d_frozen_transpose", "size", [8, 4], "does not take an image"
    yield "max_pool2d_frozen_transpose", "size", [6, 6], "does not take an image"
    for u in (torch.ones(4, 3, 2, 2), torch.ones(4, 3, 3, 3)):
        yield "max_pool2d_frozen_transpose", "u", u, "not of the decision's size"


CALLS = list(wrong())


@pytest.mark.parametrize("number", range(len(CALLS)), ids=lambda n: "-".join(CALLS[n][:2]))
def test_one_wrong_argument_is_refused(number: int) -> None:
    name, argument, value, words = CALLS[number]
    args = good()[name]
    args[arguments(name).index(argument)] = value
    with pytest.raises(RuntimeError) as refusal:
        getattr(NATIVE, name)(*args)
    assert words in str(refusal.value), argument
    assert f"{name}: " in str(refusal.value)


@pytest.mark.parametrize("name", good())
def test_the_same_arguments_without_a_mistake_are_taken(name: str) -> None:
    getattr(NATIVE, name)(*good()[name])


@pytest.mark.parametrize("name", [n for n in good() if "channels_last" in arguments(n)])
def test_orders_are_of_4_or_5_dimensions(name: str) -> None:
    args = good()[name]
    args[arguments(name).index("channels_last")] = True
    for shape, taken in (((4, 72), False), ((4, 3, 24), False), ((4, 3, 6, 2, 2), True)):
        args[0] = torch.randn(shape)
        if taken:
            args[0] = args[0].contiguous(memory_format=torch.channels_last_3d)
            getattr(NATIVE, name)(*args)
        else:
            with pytest.raises(RuntimeError, match=f"4 or 5 dimensions, x has {len(shape)}"):
                getattr(NATIVE, name)(*args)


@pytest.mark.parametrize("name", ["relu_frozen_", "clamp_frozen_"])
def test_in_place_wants_memory_in_the_decisions_order(name: str) -> None:
    args = good()[name]
    dense = args[0]
    for x, last in (
        (dense.contiguous(memory_format=torch.channels_last), False),
        (dense, True),
        (torch.stack([dense, dense], -1)[..., 0], False),
    ):
        with pytest.raises(RuntimeError, match="not dense in the decision's order"):
            getattr(NATIVE, name)(x, *args[1:-1], last)


def test_samples_have_at_most_2_to_the_60_elements() -> None:
    for height, width, taken in (
        (2**30, 2**30, True),
        (2**30 + 1, 2**30, False),
        (2**40, 2**40, False),
    ):
        x = torch.zeros(0, 1, 1).expand(0, height, width)
        decision = torch.zeros(1, 1, dtype=torch.uint8).expand(1, 2**57)
        if taken:
            assert NATIVE.relu_frozen(x, decision, 0.0, False).shape == x.shape
        else:
            with pytest.raises(RuntimeError, match="too large"):
                NATIVE.relu_frozen(x, decision, 0.0, False)


def test_windows_go_as_far_as_an_int() -> None:
    # size + 2 padding + dilation kernel + 2 stride is at most 2^31 - 1.
    x = torch.randn(1, 1, 5, 5)
    for side in (0, 1):
        kernel, stride = [1, 1], [1, 1]
        kernel[side], stride[side] = 2, 2**30 - 4
        y, _ = NATIVE.max_pool2d_scope(x, 1, kernel, stride, [0, 0], [1, 1], False)
        assert y.shape[2 + side] == 1
        stride[side] += 1
        with pytest.raises(RuntimeError, match="beyond 2\\^31"):
            NATIVE.max_pool2d_scope(x, 1, kernel, stride, [0, 0], [1, 1], False)


def windows(sizes: range) -> Iterator[tuple[int, list, bool]]:
    numbers = itertools.product(sizes, range(1, 5), range(1, 5), range(3), range(1, 4), (0, 1))
    for size, kernel, stride, padding, dilation, ceil_mode in numbers:
        yield size, [kernel, stride, padding, dilation], bool(ceil_mode)


@pytest.mark.parametrize("side", [0, 1], ids=["height", "width"])
def test_every_small_window_is_taken_where_it_has_a_pixel(side: int) -> None:
    check, taken = OPERATORS["max_pool2d_scope"].check, 0
    for size, numbers, ceil_mode in windows(range(1, 8)):
        x = torch.arange(float(size)).roll(size // 2)
        x = x.view(1, 1, size, 1) if side == 0 else x.view(1, 1, 1, size)
        window = [[n, other] if side == 0 else [other, n]
                  for n, other in zip(numbers, (1, 1, 0, 1), strict=True)]  # fmt: skip
        try:
            check(x, 1, *window, ceil_mode)
        except ValueError:
            with pytest.raises(RuntimeError):
                NATIVE.max_pool2d_scope(x, 1, *window, ceil_mode)
            continue
        taken += 1
        y, decision = NATIVE.max_pool2d_scope(x, 1, *window, ceil_mode)
        kernel, _, padding, _ = numbers
        if 2 * padding <= kernel:  # otherwise torch has no such window
            want = reference.max_pool2d_scope(x, 1, *window, ceil_mode)
            assert torch.equal(y, want[0]) and torch.equal(decision, want[1])
        back = NATIVE.max_pool2d_frozen_transpose(y, decision, list(x.shape[2:]), *window)
        assert back.sum() == y.sum()
    assert taken > 1000
