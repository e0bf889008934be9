"""Boxes of reshaped tensors."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor

from ..step import Step
from .box import Box, Interval, fit, margins, sizes
from .part import Bound, Context, Part, only

Shape = Sequence[int]


def reshaped(step: Step, live: Context) -> Bound:
    """The same entries in another shape.

    Dimensions are taken in groups that hold the same entries before and after; in each, a box is
    widened to entries that lie one after the other.
    """
    before, after = step.args[0].shape, step.output.shape
    groups = _groups(before, after)

    def bound(boxes: Sequence[Box | None]) -> Part | None:
        (box,) = boxes
        if box is None:
            return None
        widened: list[Interval] = []
        rows: list[Interval] = []
        made: list[Interval] = []
        wanted: list[Interval] = []
        for a, b in groups:
            inner = _widened(box[a.start : a.stop], before[a.start : a.stop])
            row = _row(inner, before[a.start : a.stop])
            outer = _boxed(row, after[b.start : b.stop])
            widened += inner
            rows.append(row)
            made += outer
            wanted.append(_row(outer, after[b.start : b.stop]))
        first, second = margins(box, tuple(widened)), margins(tuple(rows), tuple(wanted))
        lengths, shape = [b - a for a, b in rows], sizes(tuple(made))

        def run(given: Sequence[Tensor | None], cuts: object) -> Tensor:
            x = only(given)
            if second is None:
                return fit(x, first).reshape(shape)
            return fit(fit(x, first).reshape(lengths), second).reshape(shape)

        return Part(tuple(made), run, (first, second), work=4.0 * prod(shape))

    return bound


def _groups(before: Shape, after: Shape) -> list[tuple[slice, slice]]:
    """Dimensions before and after, side by side, with the same number of entries."""
    groups = []
    i = j = 0
    while i < len(before) or j < len(after):
        first, second = i, j
        left = right = 1
        if i < len(before):
            left, i = before[i], i + 1
        if j < len(after):
            right, j = after[j], j + 1
        while left != right:
            if left < right:
                left, i = left * before[i], i + 1
            else:
                right, j = right * after[j], j + 1
        groups.append((slice(first, i), slice(second, j)))
    return groups


def _widened(box: Box, shape: Shape) -> list[Interval]:
    """A box around a box whose entries lie one after the other: a single place, an interval, and
    all of what comes after.
    """
    made = list(box)
    for d, (a, b) in enumerate(box):
        if b - a > 1:
            made[d + 1 :] = [(0, n) for n in shape[d + 1 :]]
            break
    return made


def _row(box: Sequence[Interval], shape: Shape) -> Interval:
    """The entries of a box that is one row of them."""
    start, last = 0, 0
    for (a, b), n in zip(box, shape, strict=True):
        start, last = start * n + a, last * n + b - 1
    return start, last + 1


def _boxed(row: Interval, shape: Shape) -> list[Interval]:
    """The smallest box around a row of entries that is one row itself."""
    start, end = row
    made: list[Interval] = []
    for d in range(len(shape)):
        inner = prod(shape[d + 1 :])
        first, last = start // inner, (end - 1) // inner
        made.append((first, last + 1))
        if first != last:
            return made + [(0, n) for n in shape[d + 1 :]]
        start, end = start - first * inner, end - first * inner
    return made
