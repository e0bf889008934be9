"""Convolutions and max pooling within boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from ...operators.reference import wide_dtype
from ..step import Step
from .box import Box, Interval, Margins, fit, margins, sizes, slices, whole
from .part import Bound, Context, Part, only

Boxes = Sequence[Box | None]
Window = tuple[int, int, int, int]  # kernel, stride, padding, dilation, along one dimension


@lru_cache(maxsize=2**16)
def answered(given: Interval, window: Window, count: int) -> Interval | None:
    """The windows, of `count`, that see any of the inputs `given`."""
    kernel, stride, padding, dilation = window
    starts, ends = [], []
    for tap in range(kernel):
        # Window o sees input o * stride - padding + tap * dilation.
        at = padding - tap * dilation
        first, last = -(-(given[0] + at) // stride), (given[1] - 1 + at) // stride
        first, last = max(first, 0), min(last, count - 1)
        if first <= last:
            starts.append(first)
            ends.append(last + 1)
    return (min(starts), max(ends)) if starts else None


@lru_cache(maxsize=2**16)
def seen(given: Interval, window: Window, count: int) -> Interval | None:
    """The inputs, of `count`, that any of the windows `given` sees."""
    kernel, stride, padding, dilation = window
    starts, ends = [], []
    for tap in range(kernel):
        at = tap * dilation - padding
        first, last = max(given[0], -(at // stride)), min(given[1] - 1, (count - 1 - at) // stride)
        if first <= last:
            starts.append(first * stride + at)
            ends.append(last * stride + at + 1)
    return (min(starts), max(ends)) if starts else None


def _covered(windows: Interval, window: Window) -> Interval:
    """From the first input that the first window covers to the last one's last, also beside what
    there is.
    """
    kernel, stride, padding, dilation = window
    last = (windows[1] - 1) * stride + dilation * (kernel - 1)
    return windows[0] * stride - padding, last - padding + 1


Reach = Callable[[Interval, Window, int], Interval | None]


def _reached(
    reach: Reach, box: Box, windows: Sequence[Window], extents: Sequence[int]
) -> list[Interval] | None:
    """What is reached along each spatial dimension; None where nothing is along one."""
    found = [reach(b, w, n) for b, w, n in zip(box[2:], windows, extents, strict=True)]
    known = [f for f in found if f is not None]
    return known if len(known) == len(found) else None


def _all(value: Any, count: int) -> list[int]:
    """torch takes one number for all dimensions, too."""
    return list(value) if len(value) == count else list(value) * count


def convolution(step: Step, live: Context) -> Bound | None:
    """Convolutions of any stride, dilation, groups, and transposed ones, with constant weights."""
    x, w, _, stride, padding, dilation, transposed, _, groups = step.args
    if not live(x) or live(w):
        return None
    weight = live.constant(w)
    kernel = list(weight.shape[2:])
    count = len(kernel)
    stride, padding, dilation = (_all(v, count) for v in (stride, padding, dilation))
    windows: list[Window] = list(zip(kernel, stride, padding, dilation, strict=True))
    given_each = x.shape[1] // groups
    made_each = step.output.shape[1] // groups
    extents = step.output.shape[2:]
    per_entry = prod(kernel) * (given_each if not transposed else made_each)

    reach = seen if transposed else answered

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        found = None if box is None else _reached(reach, box, windows, extents)
        if box is None or found is None:
            return None
        first, last = box[1][0] // given_each, (box[1][1] - 1) // given_each
        made = (box[0], (first * made_each, (last + 1) * made_each), *found)
        # What the windows cover: of inputs, or, transposed, of what is made before it is cut.
        outputs = box[2:] if transposed else found
        cover = [_covered(o, w) for o, w in zip(outputs, windows, strict=True)]
        channels = (first * given_each, (last + 1) * given_each)
        wanted = (box[0], channels, *(box[2:] if transposed else cover))
        some = slice(first * _rows(weight, groups), (last + 1) * _rows(weight, groups))
        used = weight if last - first + 1 == groups else weight[some]
        by = margins(box, wanted)
        each = (stride, dilation, last - first + 1)
        area = prod(sizes(box if transposed else made))
        if transposed:
            trim = margins((*made[:2], *cover), made)
            run = partial(_transposed, used, by, trim, each)
            key = (by, trim, some.start)
        else:
            by, pads = _paddings(by, count)
            run = partial(_convolved, used, by, pads, each)
            key = (by, tuple(pads), some.start)
        return Part(made, run, key, work=float(area * per_entry))

    return bound


def _rows(weight: Tensor, groups: int) -> int:
    """The rows of weights of a group."""
    return weight.shape[0] // groups


def _paddings(by: Margins | None, count: int) -> tuple[Margins | None, list[int]]:
    """Margins, less what the convolution adds by itself on both sides alike."""
    if by is None:
        return None, [0] * count
    pads = [max(0, min(pair)) for pair in by[2:]]
    left = (*by[:2], *[(a - p, b - p) for (a, b), p in zip(by[2:], pads, strict=True)])
    return (left if any(pair != (0, 0) for pair in left) else None), pads


def _convolved(
    weight: Tensor,
    by: Margins | None,
    pads: list[int],
    each: tuple[Any, ...],
    given: Sequence[Tensor | None],
    cuts: Any,
) -> Tensor:
    x = only(given)
    stride, dilation, groups = each
    zero = [0] * len(pads)
    return torch.convolution(fit(x, by), weight, None, stride, pads, dilation, False, zero, groups)


def _transposed(
    weight: Tensor,
    by: Margins | None,
    trim: Margins | None,
    each: tuple[Any, ...],
    given: Sequence[Tensor | None],
    cuts: Any,
) -> Tensor:
    x = only(given)
    stride, dilation, groups = each
    zero = [0] * len(stride)
    y = torch.convolution(fit(x, by), weight, None, stride, zero, dilation, True, zero, groups)
    return fit(y, trim)


def max_pool(step: Step, live: Context) -> Bound:
    """Each output takes the input that won its window."""
    winners = live.constant(step.args[1])
    return _pool(winners, step.args[2:], winners.shape[2:], transposed=False)


def max_pool_transpose(step: Step, live: Context) -> Bound:
    """Each entry goes back to the input that won its window."""
    _, winners, size, *window = step.args
    return _pool(live.constant(winners), window, size, transposed=True)


def _pool(
    winners: Tensor, window: Sequence[Any], extents: Sequence[int], transposed: bool
) -> Bound:
    kernel, stride, padding, dilation = window
    windows: list[Window] = list(zip(kernel, stride, padding, dilation, strict=True))
    reach, function = (seen, _unpooled) if transposed else (answered, _pooled)

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        found = None if box is None else _reached(reach, box, windows, extents)
        if box is None or found is None:
            return None
        made = (*box[:2], *found)
        inputs, outputs = (made, box) if transposed else (box, made)
        # Where the first window starts, in the box of the inputs.
        corner = [
            o[0] * s - p - i[0]
            for i, o, (_, s, p, _) in zip(inputs[2:], outputs[2:], windows, strict=True)
        ]
        area = sizes(inputs)[2:]
        run = partial(function, kernel, corner, stride, dilation, area)
        cut = partial(_winners, winners, outputs)
        work = 8.0 * prod(sizes(made))
        return Part(made, run, (tuple(corner), tuple(area)), (cut,), work)

    return bound


def _winners(winners: Tensor, box: Box) -> Tensor:
    return winners[slices(box, whole(winners.shape))]


def _sources(
    code: Tensor,
    kernel: Sequence[int],
    corner: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    area: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Of winners (1, channels, h, w): the flat places that they took in an area, and whether they
    lie in it.
    """
    number = code.long()
    h, w = (torch.arange(n, device=code.device) for n in code.shape[2:])
    row = h[:, None] * stride[0] + corner[0] + number // kernel[1] * dilation[0]
    column = w * stride[1] + corner[1] + number % kernel[1] * dilation[1]
    inside = (number >= 0) & (number < kernel[0] * kernel[1])
    inside = inside & (row >= 0) & (row < area[0]) & (column >= 0) & (column < area[1])
    return (row * area[1] + column).where(inside, 0).flatten(2), inside.flatten(2)


def _pooled(kernel, corner, stride, dilation, area, given, cuts) -> Tensor:
    x = only(given)
    at, inside = _sources(cuts[0], kernel, corner, stride, dilation, area)
    y = x.flatten(2).gather(2, at).where(inside, 0)
    return y.unflatten(2, cuts[0].shape[2:])


def _unpooled(kernel, corner, stride, dilation, area, given, cuts) -> Tensor:
    u = only(given)
    at, inside = _sources(cuts[0], kernel, corner, stride, dilation, area)
    u_wide = u.flatten(2).to(wide_dtype(u.dtype)).where(inside, 0)
    x = u_wide.new_zeros(*u.shape[:2], prod(area)).scatter_add(2, at, u_wide)
    return x.to(u.dtype).unflatten(2, list(area))
