"""Boxes: the places (start, end) along each dimension outside of which a tensor is zero."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch.nn.functional as F
from torch import Tensor

Interval = tuple[int, int]
Box = tuple[Interval, ...]


def whole(shape: Iterable[int]) -> Box:
    return tuple([(0, n) for n in shape])


def sizes(box: Box) -> list[int]:
    return [end - start for start, end in box]


def hull(boxes: Sequence[Box]) -> Box:
    """The smallest box around some of as many dimensions."""
    if len(boxes) == 1:
        return boxes[0]
    return tuple(
        [(min(s for s, _ in along), max(e for _, e in along)) for along in zip(*boxes, strict=True)]
    )


def slices(box: Box, of: Box) -> tuple[slice, ...]:
    """Where a box lies in a tensor that holds the box `of`."""
    return tuple([slice(a - o, b - o) for (a, b), (o, _) in zip(box, of, strict=True)])


def inside(box: Box) -> tuple[slice, ...]:
    """Where a box lies in a tensor that holds everything."""
    return tuple([slice(a, b) for a, b in box])


Margins = tuple[Interval, ...]  # entries added before and after, along each dimension; or left out


def margins(box: Box, to: Box) -> Margins | None:
    """What makes a box another one; None if it is that."""
    if box == to:
        return None
    return tuple([(a - c, d - b) for (a, b), (c, d) in zip(box, to, strict=True)])


def fit(t: Tensor, by: Margins | None) -> Tensor:
    """A tensor with zeros around it, or less of it."""
    if by is None:
        return t
    if all(a <= 0 and b <= 0 for a, b in by):
        for dim, (a, b) in enumerate(by):
            if a or b:
                t = t.narrow(dim, -a, t.shape[dim] + a + b)
        return t
    changed = min(dim for dim, by_dim in enumerate(by) if by_dim != (0, 0))
    return F.pad(t, [n for pair in reversed(by[changed:]) for n in pair])
