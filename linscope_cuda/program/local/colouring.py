"""Colouring: unit probes whose answers do not meet share one product.

The answer to a unit probe at a place (i, j, ...) lies within a box for its i, and within one for
its j. Along each dimension the places have colours, so that the boxes of one colour lie apart.
Probes that have the same colour along each dimension are of one colour: their places differ in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush
from itertools import product as combinations
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from .box import Box, Interval, whole
from .local import Local

_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Along:
    """A dimension of the input: the box of the answer for each place along it (None: no answer),
    and the dimension `answered` of the answer in which those of one colour lie apart. `colours` are
    the places of each.
    """

    boxes: list[Box | None]
    answered: int
    size: int  # of that dimension
    colours: list[list[int]]

    @cached_property
    def colour(self) -> dict[int, int]:
        return {i: c for c, places in enumerate(self.colours) for i in places}

    def interval(self, i: int) -> Interval:
        box = self.boxes[i]
        return (0, 0) if box is None else box[self.answered]

    def owners(self, colour: int) -> Tensor:
        """Which place of a colour an entry of the answer belongs to, (size,); -1: none."""
        found = torch.full((self.size,), -1, device=_CPU)
        for i in self.colours[colour]:
            found[slice(*self.interval(i))] = i
        return found

    def rank(self, colour: int) -> Tensor:
        """How many places before its owner reach an entry of the answer, (size,)."""
        found = torch.zeros(self.size, dtype=torch.int64, device=_CPU)
        for i in self.colours[colour]:
            found[slice(*self.interval(i))] = self._counted[0][i]
        return found

    @property
    def counts(self) -> Tensor:
        """How many places reach an entry of the answer, (size,)."""
        return self._counted[1]

    @cached_property
    def _counted(self) -> tuple[list[Tensor], Tensor]:
        counts = torch.zeros(self.size, dtype=torch.int64, device=_CPU)
        before = []
        for i in range(len(self.boxes)):
            own = counts[slice(*self.interval(i))]
            before.append(own.clone())
            own += 1
        return before, counts


class Columns(NamedTuple):
    """What one product gives of the matrix: `values` (channels, rows) are its entries in the flat
    `rows`, in the columns `columns` + c * `stride` for channel c; `rank` counts the entries that a
    row may have in columns before, of the same channel.
    """

    rows: Tensor
    columns: Tensor
    stride: int
    rank: Tensor
    values: Tensor


class Colouring:
    """The unit probes of a line, coloured: those of one colour share a product. The channels (the
    input's first dimension) of a place are probes of one batch.

    >>> len(Colouring(local))    # products for all of the matrix, in probes
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
    def counts(self) -> Tensor:
        """How many entries each row of the matrix may have for a channel, flat over the output."""
        found = torch.ones([1] * len(self.output), dtype=torch.int64, device=_CPU)
        for a in self.along:
            found = found * self._shown(a.counts, a.answered)
        return found.expand(self.output).flatten()

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
        """Probes of one colour and channel do not meet."""
        return (place[0], *(a.colour[i] for i, a in zip(place[1:], self.along, strict=True)))

    def columns(self, product: Callable[[Tensor], Tensor], like: Tensor) -> Iterator[Columns]:
        """All of the matrix, colour by colour; `like` is of the probes' dtype and device."""
        stride = prod(self.input[1:])
        for colour in combinations(*(range(len(a.colours)) for a in self.along)):
            rows, columns, rank = (t.to(like.device) for t in self._owners(colour))
            y = product(self._probes(colour, like)).flatten(1)
            yield Columns(rows, columns, stride, rank, y[:, rows])

    def _probes(self, colour: Sequence[int], like: Tensor) -> Tensor:
        """All probes of a colour at once, channel by channel: (channels, *input)."""
        ones = torch.ones([1] * len(self.along), dtype=torch.bool, device=_CPU)
        for d, (c, a) in enumerate(zip(colour, self.along, strict=True)):
            along = torch.zeros(len(a.boxes), dtype=torch.bool, device=_CPU)
            along[a.colours[c]] = True
            ones = ones & along.view([-1 if e == d else 1 for e in range(len(self.along))])
        channels = torch.eye(self.channels, dtype=like.dtype, device=like.device)
        shape = (self.channels, self.channels, *[1] * len(self.along))
        return channels.view(shape) * ones.to(like)

    def _owners(self, colour: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Of the answer to the probes of a colour: the flat rows that are one's, whose (its flat
        place), and its rank among those that may be in that row.
        """
        owners = [a.owners(c) for c, a in zip(colour, self.along, strict=True)]
        kept = [
            torch.arange(n, device=_CPU) for n in self.output
        ]  # along each dimension of the answer
        for own, a in zip(owners, self.along, strict=True):
            at = kept[a.answered]
            kept[a.answered] = at[own[at] >= 0]
        rows = torch.zeros([1] * len(self.output), dtype=torch.int64, device=_CPU)
        for d, (at, size) in enumerate(zip(kept, self.output, strict=True)):
            rows = rows * size + self._shown(at, d)
        columns = rank = torch.zeros([1] * len(self.output), dtype=torch.int64, device=_CPU)
        for c, own, size, a in zip(colour, owners, self.input[1:], self.along, strict=True):
            at = kept[a.answered]
            columns = columns * size + self._shown(own[at], a.answered)
            rank = rank * self._shown(a.counts[at], a.answered)
            rank = rank + self._shown(a.rank(c)[at], a.answered)
        shape = rows.shape
        return rows.flatten(), columns.expand(shape).flatten(), rank.expand(shape).flatten()

    def _shown(self, values: Tensor, dim: int) -> Tensor:
        """Values along a dimension of the output, in all of its dimensions."""
        return values.view([-1 if d == dim else 1 for d in range(len(self.output))])


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
        found.append(Along(boxes, e, local.line.output.shape[e + 1], _apart(intervals)))
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
