"""Functions that move entries, or add them up, within boxes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..step import Step
from ..views import ORDERS
from .axis import TooLong, axes_of
from .box import Box, fit, hull, margins, sizes
from .part import Bound, Context, Part, Reads, area, only

aten = torch.ops.aten

Boxes = Sequence[Box | None]


def permute(step: Step, live: Context) -> Bound:
    back = ORDERS[step.function](len(step.args[0].shape), *step.args[1:])
    order = sorted(range(len(back)), key=back.__getitem__)

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None:
            return None
        made = tuple([box[d] for d in order])
        return Part(made, lambda given, cuts: only(given).permute(order))

    return bound


def along_axes(step: Step, live: Context) -> Bound | None:
    if step.function is aten.roll.default and not (len(step.args) > 2 and step.args[2]):
        return None  # of all entries in a row
    try:
        axes = axes_of(step)
    except TooLong:
        return None

    def run(found: Any, given: Sequence[Tensor | None], cuts: Any) -> Tensor:
        x = only(given)
        for dim, f in found:
            x = f(x, dim)
        return x

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None:
            return None
        made, keys, found = list(box), [], []
        for dim, axis in axes.items():
            reached = axis.reach(*box[dim])
            if reached is None:
                return None
            key, f = axis.between(box[dim], reached)
            made[dim] = reached
            keys.append(key)
            found.append((dim, f))
        return Part(tuple(made), partial(run, found), tuple(keys), work=area(tuple(made)))

    return bound


def select(step: Step, live: Context) -> Bound:
    x, dim, index = step.args
    dim, index = dim % len(x.shape), index % x.shape[dim % len(x.shape)]

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None or not box[dim][0] <= index < box[dim][1]:
            return None
        made, at = (*box[:dim], *box[dim + 1 :]), index - box[dim][0]
        return Part(made, lambda given, cuts: only(given).select(dim, at), at)

    return bound


def select_backward(step: Step, live: Context) -> Bound:
    _, shape, dim, index = step.args
    dim = dim % len(shape)
    index %= shape[dim]

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None:
            return None
        made = (*box[:dim], (index, index + 1), *box[dim:])
        return Part(made, lambda given, cuts: only(given).unsqueeze(dim))

    return bound


def scatter(step: Step, live: Context) -> Bound | None:
    """slice_scatter: what a slice of `self` becomes."""
    names = ("self", "src", "dim", "start", "end", "step")
    at = {"dim": 0, "start": None, "end": None, "step": 1, **step.kwargs}
    at |= dict(zip(names, step.args, strict=False))
    shape, dim = step.output.shape, at["dim"] % len(step.output.shape)
    start, end, stride = slice(at["start"], at["end"], at["step"]).indices(shape[dim])
    end = max(start, end)
    if stride != 1:
        return None
    reads = Reads.of(step, live)
    kept, placed = reads.place(at["self"]), reads.place(at["src"])

    def run(by: Any, where: Any, given: Sequence[Tensor | None], cuts: Any) -> Tensor:
        x = None if kept is None else given[kept]
        y = None if placed is None else given[placed]
        some = x if y is None else y
        assert some is not None
        x = some.new_zeros(where[2]) if x is None else fit(x, by[0])
        if where[0] >= where[1]:
            return x
        size = [*where[2][:dim], where[1] - where[0], *where[2][dim + 1 :]]
        y = some.new_zeros(size) if y is None else fit(y, by[1])
        return torch.slice_scatter(x, y, dim, where[0], where[1])

    def bound(boxes: Boxes) -> Part | None:
        x = None if kept is None else boxes[kept]
        y = None if placed is None else boxes[placed]
        if y is not None:
            a, b = y[dim]
            y = (*y[:dim], (a + start, b + start), *y[dim + 1 :])
        there = [b for b in (x, y) if b is not None]
        if not there:
            return None
        box = hull(there)
        low, high = max(start, box[dim][0]), min(end, box[dim][1])
        part = (*box[:dim], (low, max(low, high)), *box[dim + 1 :])
        by = (
            None if x is None else margins(x, box),
            None if y is None else margins(y, part),
        )
        where = (low - box[dim][0], high - box[dim][0], tuple(sizes(box)))
        key = (by, where, x is None, y is None)
        return Part(box, partial(run, by, where), key, work=area(box))

    return bound


def total(step: Step, live: Context) -> Bound:
    """sum and mean, of all or of some dimensions."""
    x = step.args[0]
    given = step.args[1] if len(step.args) > 1 else step.kwargs.get("dim")
    given = [given] if isinstance(given, int) else given
    dims = [d % len(x.shape) for d in given or range(len(x.shape))]
    keep = step.args[2] if len(step.args) > 2 else step.kwargs.get("keepdim", False)
    count = prod(x.shape[d] for d in dims)
    mean = step.function in (aten.mean.default, aten.mean.dim)
    dtype = step.output.dtype

    def run(given: Sequence[Tensor | None], cuts: Any) -> Tensor:
        y = torch.sum(only(given), dims, keep, dtype=dtype) if dims else only(given)
        return y / count if mean else y

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None:
            return None
        along = [(0, 1) if d in dims else b for d, b in enumerate(box)]
        made = tuple(along if keep else [b for d, b in enumerate(box) if d not in dims])
        return Part(made, run, work=area(box))

    return bound


def joined(step: Step, live: Context) -> Bound:
    """cat and stack; constants among their parts are zeros."""
    parts, *dim = step.args
    at = (dim[0] if dim else step.kwargs.get("dim", 0)) % len(step.output.shape)
    stacked = step.function is aten.stack.default
    parts = [p for p in parts if tuple(p.shape) != (0,)]
    reads = Reads.of(step, live)
    extents = [1 if stacked else p.shape[at] for p in parts]
    offsets = [sum(extents[:i]) for i in range(len(parts))]

    def run(pieces: Any, given: Sequence[Tensor | None], cuts: Any) -> Tensor:
        some = next(t for t in given if t is not None)
        made = []
        for where, by, size in pieces:
            t = None if where is None else given[where]
            if t is None:
                made.append(some.new_zeros(size, dtype=step.output.dtype))
            else:
                t = t.unsqueeze(at) if stacked else t
                made.append(fit(t, by).to(step.output.dtype))
        return made[0] if len(made) == 1 else torch.cat(made, at)

    def shifted(box: Box | None, by: int) -> Box | None:
        if box is None:
            return None
        if stacked:
            return (*box[:at], (by, by + 1), *box[at:])
        return (*box[:at], (box[at][0] + by, box[at][1] + by), *box[at + 1 :])

    def bound(boxes: Boxes) -> Part | None:
        numbers = [reads.place(p) for p in parts]
        found = [
            None if i is None else shifted(boxes[i], o)
            for i, o in zip(numbers, offsets, strict=True)
        ]
        there = [b for b in found if b is not None]
        if not there:
            return None
        box = hull(there)
        pieces = []
        for number, b, o, n in zip(numbers, found, offsets, extents, strict=True):
            low, high = max(o, box[at][0]), min(o + n, box[at][1])
            if low >= high:
                continue
            part = (*box[:at], (low, high), *box[at + 1 :])
            by = None if b is None else margins(b, part)
            pieces.append((number if b is not None else None, by, tuple(sizes(part))))
        return Part(box, partial(run, pieces), tuple(pieces), work=area(box))

    return bound


def shuffle(step: Step, live: Context) -> Bound:
    _, r = step.args

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None:
            return None
        *lead, (c0, c1), (h0, h1), (w0, w1) = box
        channels = c0 // r**2, -(-c1 // r**2)
        by = margins(box, (*lead, (channels[0] * r**2, channels[1] * r**2), *box[-2:]))
        made = (*lead, channels, (h0 * r, h1 * r), (w0 * r, w1 * r))
        return Part(
            made,
            lambda given, cuts: torch.pixel_shuffle(fit(only(given), by), r),
            by,
            work=area(made),
        )

    return bound


def unshuffle(step: Step, live: Context) -> Bound:
    _, r = step.args

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None:
            return None
        *lead, (c0, c1), (h0, h1), (w0, w1) = box
        pixels = (h0 // r, -(-h1 // r)), (w0 // r, -(-w1 // r))
        by = margins(box, (*lead, (c0, c1), *[(a * r, b * r) for a, b in pixels]))
        made = (*lead, (c0 * r**2, c1 * r**2), *pixels)
        return Part(
            made,
            lambda given, cuts: torch.pixel_unshuffle(fit(only(given), by), r),
            by,
            work=area(made),
        )

    return bound
