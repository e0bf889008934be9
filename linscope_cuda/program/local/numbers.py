"""Entries taken by their numbers, and placed by them, within boxes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..step import Step
from .box import Box, Interval, sizes, slices, whole
from .part import Bound, Context, Part, area, only

Boxes = Sequence[Box | None]


class Sources:
    """Where each entry of a picture (1, channels, *places) is taken from, as the number of a place
    in another one, of `extents`.
    """

    def __init__(self, numbers: Tensor, extents: Sequence[int]) -> None:
        self.numbers, self.extents = numbers, extents

    @cached_property
    def along(self) -> list[tuple[Tensor, Tensor]]:
        """For each dimension the first and the last place that an entry at each of its own places
        is taken from.
        """
        found = []
        for d, at in enumerate(self._places(self.numbers)):
            others = [e for e in range(at.dim()) if e != d + 2]
            found.append((at.amin(others).cpu(), at.amax(others).cpu()))
        return found

    def _places(self, numbers: Tensor) -> list[Tensor]:
        found = []
        for d in range(len(self.extents)):
            inner = prod(self.extents[d + 1 :])
            found.append(numbers // inner % self.extents[d])
        return found

    def takers(self, given: Sequence[Interval]) -> list[Interval] | None:
        """Which entries may be taken from some places; None: none."""
        made = []
        for (first, last), (start, end) in zip(self.along, given, strict=True):
            at = ((last >= start) & (first < end)).nonzero()
            if not len(at):
                return None
            made.append((int(at[0]), int(at[-1]) + 1))
        return made

    def taken(self, given: Sequence[Interval]) -> list[Interval]:
        """From which places some entries are taken."""
        return [
            (int(first[start:end].min()), int(last[start:end].max()) + 1)
            for (first, last), (start, end) in zip(self.along, given, strict=True)
        ]

    def within(self, entries: Box, places: Sequence[Interval]) -> Tensor:
        """The numbers of places in a box, of a box of entries; -1 where they are not in it."""
        numbers = self.numbers[slices(entries, whole(self.numbers.shape))]
        flat = torch.zeros_like(numbers)
        inside = torch.ones_like(numbers, dtype=torch.bool)
        for at, (start, end) in zip(self._places(numbers), places, strict=True):
            inside &= (at >= start) & (at < end)
            flat = flat * (end - start) + at - start
        return flat.where(inside, -1)


def _sources(step: Step, live: Context, picture: Any, extents: Sequence[int]) -> Sources | None:
    """None where the two pictures have no dimensions in common."""
    numbers = step.args[1]
    if live(numbers) or len(picture.shape) != len(extents) + 2:
        return None
    return Sources(live.constant(numbers).view(picture.shape), extents)


def take(step: Step, live: Context) -> Bound | None:
    """Entries of a picture by their numbers."""
    x = step.args[0]
    sources = _sources(step, live, step.output, x.shape[2:])
    if sources is None:
        return None

    def run(given: Sequence[Tensor | None], cuts: Sequence[Tensor]) -> Tensor:
        at = cuts[0].flatten(2)
        y = only(given).flatten(2).gather(2, at.clamp(min=0)).where(at >= 0, 0)
        return y.unflatten(2, cuts[0].shape[2:])

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        reached = None if box is None else sources.takers(box[2:])
        if box is None or reached is None:
            return None
        made = (*box[:2], *reached)
        cut = partial(sources.within, made, box[2:])
        return Part(made, run, None, (cut,), 2 * area(made))

    return bound


def place(step: Step, live: Context) -> Bound | None:
    """Entries added up at their numbers."""
    u, _, shape = step.args
    sources = _sources(step, live, u, shape[2:])
    if sources is None:
        return None

    def run(size: list[int], given: Sequence[Tensor | None], cuts: Sequence[Tensor]) -> Tensor:
        entries = only(given)
        x = entries.new_zeros(*entries.shape[:2], prod(size))
        return x.scatter_add(2, cuts[0].flatten(2), entries.flatten(2)).unflatten(2, size)

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None:
            return None
        made = (*box[:2], *sources.taken(box[2:]))
        size = sizes(made)[2:]
        cut = partial(sources.within, box, made[2:])
        return Part(made, partial(run, size), tuple(size), (cut,), 2 * area(made))

    return bound
