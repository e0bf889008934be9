"""Colouring: unit probes whose answers do not meet share one product.

The answer to a unit probe at a place (i, j, ...) lies within a box for its i, and within one for
its j. Along each dimension the places have colours, so that the boxes of one colour lie apart.
Probes that have the same colour along each dimension are of one colour: their places differ in one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush
from itertools import product as combinations
from math import prod

import torch
from torch import Tensor

from .box import Box, Interval, whole
from .local import Local


@dataclass(frozen=True, eq=False)
class Along:
    """A dimension of the input: the box of the answer for each place along it (None: no answer),
    and the dimension `answered` of the answer in which those of one colour lie apart. `colours` are
    the places of each.
    """

    boxes: list[Box | None]
    answered: int
    colours: list[list[int]]

    @cached_property
    def colour(self) -> dict[int, int]:
        return {i: c for c, places in enumerate(self.colours) for i in places}

    def interval(self, i: int) -> Interval:
        box = self.boxes[i]
        return (0, 0) if box is None else box[self.answered]

    def owners(self, colour: int, size: int) -> Tensor:
        """Which place of a colour an entry of the answer belongs to, (size,); -1: none."""
        found = torch.full((size,), -1)
        for i in self.colours[colour]:
            found[slice(*self.interval(i))] = i
        return found


class Colouring:
    """The unit probes of a line, coloured; those of different channels (the input's first
    dimension) have different colours.

    >>> len(Colouring(local))    # products for all of the matrix
    """

    def __init__(self, local: Local) -> None:
        self.input = local.line.input.shape[1:]
        self.output = local.line.output.shape[1:]
        self.along = [_along(local, d) for d in range(1, len(self.input))]

    def __len__(self) -> int:
        return self.channels * prod(len(a.colours) for a in self.along)

    @property
    def channels(self) -> int:
        return self.input[0]

    @cached_property
    def entries(self) -> Tensor:
        """How many entries each row of the matrix may have, flat over the output."""
        counts = torch.full([1] * len(self.output), self.channels)
        for a in self.along:
            found = torch.zeros(self.output[a.answered], dtype=torch.int64)
            for i in range(len(a.boxes)):
                found[slice(*a.interval(i))] += 1
            counts = counts * self._shown(found, a)
        return counts.expand(self.output).flatten()

    def box(self, place: Sequence[int]) -> Box | None:
        """Where the answer to a probe (channel, i, j, ...) may be other than zero."""
        box = whole(self.output)
        for i, a in zip(place[1:], self.along, strict=True):
            other = a.boxes[i]
            if other is None:
                return None
            box = tuple([(max(s, p), min(e, q)) for (s, e), (p, q) in zip(box, other, strict=True)])
        return None if any(s >= e for s, e in box) else box

    def colour(self, place: Sequence[int]) -> tuple[int, ...]:
        """Probes of one colour do not meet."""
        return (place[0], *(a.colour[i] for i, a in zip(place[1:], self.along, strict=True)))

    def colours(self) -> Iterator[tuple[int, ...]]:
        return combinations(range(self.channels), *(range(len(a.colours)) for a in self.along))

    def probe(self, colour: Sequence[int], like: Tensor) -> Tensor:
        """All probes of a colour at once: (1, *input)."""
        ones = like.new_ones([1] * len(self.along))
        for d, (r, a) in enumerate(zip(colour[1:], self.along, strict=True)):
            along = like.new_zeros(len(a.boxes))
            along[a.colours[r]] = 1
            ones = ones * along.view([-1 if e == d else 1 for e in range(len(self.along))])
        x = like.new_zeros(1, *self.input)
        x[0, colour[0]] = ones
        return x

    def owners(self, colour: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Of the answer to the probes of a colour: the flat entries that are one's, and whose."""
        strides = [prod(self.input[d + 1 :]) for d in range(len(self.input))]
        flat = torch.full([1] * len(self.output), colour[0] * strides[0])
        there = torch.ones([1] * len(self.output), dtype=torch.bool)
        for r, stride, a in zip(colour[1:], strides[1:], self.along, strict=True):
            shown = self._shown(a.owners(r, self.output[a.answered]), a)
            flat = flat + shown * stride
            there = there & (shown >= 0)
        entries = there.expand(self.output).flatten().nonzero()[:, 0]
        return entries, flat.expand(self.output).flatten()[entries]

    def _shown(self, values: Tensor, a: Along) -> Tensor:
        """Values along the answered dimension, in the dimensions of the output."""
        return values.view([-1 if d == a.answered else 1 for d in range(len(self.output))])


def _along(local: Local, d: int) -> Along:
    shape = local.line.input.shape
    ends = whole(shape)
    boxes: list[Box | None] = []
    for i in range(shape[d + 1]):
        box = local.plan((*ends[: d + 1], (i, i + 1), *ends[d + 2 :])).box
        boxes.append(None if box is None else box[1:])
    found = []
    for e in range(len(local.line.output.shape) - 1):
        intervals = [(0, 0) if b is None else b[e] for b in boxes]
        found.append(Along(boxes, e, _apart(intervals)))
    return min(found, key=lambda a: len(a.colours))


def _apart(intervals: Sequence[Interval]) -> list[list[int]]:
    """Intervals in as few groups as there are, so that those of a group lie apart: each, by its
    start, goes where the last one ended first.
    """
    groups: list[list[int]] = []
    ends: list[tuple[int, int]] = []  # of each group, and its number: a heap
    for i in sorted(range(len(intervals)), key=lambda i: intervals[i]):
        start, end = intervals[i]
        if ends and ends[0][0] <= start:
            group = heappop(ends)[1]
            groups[group].append(i)
        else:
            group = len(groups)
            groups.append([i])
        heappush(ends, (end, group))
    return groups
