"""Products of probes that are zero almost everywhere, at the cost of what they reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch import Tensor

from ..program import Line
from ..program.local import Local, Plan
from ..program.local.box import Box, inside, sizes, slices, whole
from ..program.local.colouring import Colouring

Product = Callable[[Tensor, int], Tensor]  # of probes, in so many bytes
Within = tuple[Box, Tensor]  # a box, and what is there


class Boxes:
    """One of the two products of a frozen network, F x or F^T u, by its line, and `full`, the
    product of any probes.

    A unit probe's answer is made in the box that it reaches, or together with others that it does
    not meet, or by a full product, whichever is predicted to take the least time.
    """

    def __init__(self, line: Line, full: Product) -> None:
        self.line, self.full = line, full
        self.input, self.output = line.input.shape[1:], line.output.shape[1:]
        self.device = line.input.device
        self.shape = prod(self.output), prod(self.input)  # as a matrix
        self.like = torch.zeros((), dtype=line.input.dtype, device=self.device)  # a probe's kind

    @cached_property
    def local(self) -> Local:
        return Local(self.line)

    @cached_property
    def colouring(self) -> Colouring:
        return Colouring(self.local)

    @cached_property
    def whole(self) -> Plan:
        """The plan of a probe that is nowhere zero."""
        return self.local.plan(whole(self.line.input.shape))

    @cached_property
    def pixel(self) -> Plan:
        """The plan of a probe of the pixel in the middle, by which others are judged."""
        middle = [(n // 2, n // 2 + 1) for n in self.input[1:]]
        return self.local.plan(((0, 1), (0, self.input[0]), *middle))

    @cached_property
    def is_global(self) -> bool:
        """Whether that reaches everything: nothing can share a product with it."""
        return self.pixel.box is not None and self.pixel.box[1:] == whole(self.output)

    def few_at_a_time(self, x: Tensor, max_bytes: int) -> Tensor:
        """A full product, probe by probe where they fill the processor's caches."""
        alone = self.device.type == "cpu" and self.whole.peak_bytes > _CACHE
        count = 1 if alone else max(1, max_bytes // max(1, self.whole.peak_bytes))
        return torch.cat([self.full(some, max_bytes) for some in x.split(count)])

    def support(self, place: int) -> Box:
        """The box outside of which the answer to the unit probe at a flat place is zero; of no
        entries, (0, 0) along each dimension, where it is zero everywhere.
        """
        box = self.local.plan(((0, 1), *[(i, i + 1) for i in self._shaped(place)])).box
        return _nothing(self.output) if box is None else box[1:]

    def _shaped(self, place: int) -> tuple[int, ...]:
        return tuple(map(int, np.unravel_index(place, self.input)))

    def units(self, places: Sequence[int], max_bytes: int) -> tuple[Tensor, int]:
        """The answers to unit probes at flat places, (places, *output), and the passes that they
        took.
        """
        like = self.like
        made = like.new_zeros(len(places), *self.output, dtype=self.line.output.dtype)
        if not places:
            return made, 0
        best = self._best(places)
        for at, box, y in best.answers(like, max_bytes):
            made[(at, *inside(box))] = y
        return made, best.passes

    def within(self, places: Sequence[int], max_bytes: int) -> tuple[list[Within], int]:
        """The same, only the boxes of the answers."""
        nothing = _nothing(self.output), self.like.new_zeros((0,) * len(self.output))
        made: list[Within] = [nothing] * len(places)
        best = self._best(places)
        for at, box, y in best.answers(self.like, max_bytes):
            several = isinstance(at, slice)
            numbers = range(at.start, at.stop) if several else [at]
            for number, one in zip(numbers, y if several else [y], strict=True):
                made[number] = box, one
                if not isinstance(best, _InBoxes):  # the others' hold more
                    own = self.support(places[number])
                    made[number] = own, one[slices(own, box)]
        return made, best.passes

    def predicted(self, places: Sequence[int]) -> float:
        """The passes that unit probes are predicted to take."""
        return self._best(places).share() if places else 0.0

    def _best(self, places: Sequence[int]) -> _Way:
        found = list(map(self._shaped, places))
        ways: list[_Way] = [_Whole(self, found)]
        if len(self.input) > 1:
            ways.append(_InBoxes(self, found))
            if len(found) > 1 and self._helps(len(found)):
                ways.append(_InOneBox(self, found))
            many = len(found) > prod(self.input[1:]) ** 0.5  # else it costs more to colour them
            if many and not self.is_global:
                ways.append(_Coloured(self, found))
        return min(ways, key=lambda way: way.seconds(self.like))

    def _helps(self, count: int, plan: Plan | None = None) -> bool:
        """Whether so many probes in a box, the smallest one unless said, are quicker there."""
        plan = plan or self.pixel
        steps = len(plan.parts)
        full = _seconds(self.whole.work * count, steps, 0, self.like)
        return _seconds(plan.work * count, steps, 1, self.like) < full

    def probes(self, x: Tensor) -> Tensor | None:
        """The answers to probes that are zero outside of a small box; None where a full product
        takes no longer.
        """
        # Elsewhere than on the CPU, to look at the probes is to wait for them.
        if len(self.input) < 2 or x.device.type != "cpu" or x.count_nonzero() * _FEW > x.numel():
            return None
        if not self._helps(len(x)):
            return None
        box = _around(x)
        y = x.new_zeros(len(x), *self.output, dtype=self.line.output.dtype)
        if box is None:
            return y
        plan = self.local.plan(((0, 1), *box))
        if not self._helps(len(x), plan):
            return None
        if plan.box is not None:
            inner = x[(slice(None), *inside(box))]
            y[(slice(None), *inside(plan.box[1:]))] = self.local.run([plan], inner[None])[0]
        return y


_FEW = 8  # times as many zeros as other entries
_CACHE = 2**22
_TOGETHER = 256  # places that are planned at a time

# Seconds that a step takes beside its multiplications, and again for each place in boxes;
# multiplications of a second, of a thread of the CPU and of anything else.
_STEP, _PLACE = 30e-6, 80e-6
_THREAD, _DEVICE = 2.5e10, 5e12
_SMALL = 2.2  # small tensors are multiplied less quickly


def _seconds(work: float, steps: int, places: int, like: Tensor) -> float:
    """The time of a product, of so many places in boxes; 0: of a full one."""
    rate = _THREAD * torch.get_num_threads() if like.device.type == "cpu" else _DEVICE
    return work * (_SMALL if places else 1.0) / rate + steps * (_STEP + _PLACE * places)


def _around(x: Tensor) -> Box | None:
    """The smallest box around what is not zero in any probe."""
    there = (x != 0).any(0)
    box = []
    for d in range(there.dim()):
        others = [e for e in range(there.dim()) if e != d]
        at = (there.amax(others) if others else there).nonzero()
        if not len(at):
            return None
        box.append((int(at[0]), int(at[-1]) + 1))
    return tuple(box)


def _nothing(shape: Sequence[int]) -> Box:
    """A box of no entries."""
    return ((0, 0),) * len(shape)


Places = list[tuple[int, ...]]
# Which probes, the box of their answers, and the answers there.
Answers = Iterator[tuple[int | slice, Box, Tensor]]


class _Way:
    """How unit probes are answered, in boxes of so many places."""

    spread = 0

    def __init__(self, boxes: Boxes, places: Places) -> None:
        self.boxes, self.places = boxes, places
        self.passes = 0

    def share(self) -> float:
        """The passes that it takes, predicted."""
        raise NotImplementedError

    def seconds(self, like: Tensor) -> float:
        """The time that it takes, predicted."""
        whole = self.boxes.whole
        return _seconds(self.share() * whole.work, len(whole.parts), self.spread, like)

    def answers(self, like: Tensor, max_bytes: int) -> Answers:
        raise NotImplementedError


class _Whole(_Way):
    """By full products, one pass each."""

    def share(self) -> float:
        return len(self.places)

    def answers(self, like: Tensor, max_bytes: int) -> Answers:
        out = whole(self.boxes.output)
        count = max(1, max_bytes // max(1, self.boxes.whole.peak_bytes))
        for start in range(0, len(self.places), count):
            some = self.places[start : start + count]
            x = like.new_zeros(len(some), *self.boxes.input)
            for probe, place in zip(x, some, strict=True):
                probe[place] = 1
            self.passes += len(some)
            yield slice(start, start + len(some)), out, self.boxes.full(x, max_bytes)


class _InBoxes(_Way):
    """Each place in the box that it reaches; places whose boxes are alike together."""

    def __init__(self, boxes: Boxes, places: Places) -> None:
        super().__init__(boxes, places)
        self.probes: dict[tuple[int, ...], list[int]] = {}  # by pixel, whose channels go together
        for number, place in enumerate(places):
            self.probes.setdefault(place[1:], []).append(number)
        self.spread = len(self.probes)

    def _plan(self, pixel: tuple[int, ...]) -> Plan:
        channels = [self.places[number][0] for number in self.probes[pixel]]
        around = min(channels), max(channels) + 1
        return self.boxes.local.plan(((0, 1), around, *[(i, i + 1) for i in pixel]))

    def share(self) -> float:
        return self.boxes.pixel.work * len(self.places) / max(1.0, self.boxes.whole.work)

    def answers(self, like: Tensor, max_bytes: int) -> Answers:
        pixels, work, total = list(self.probes), 0.0, max(1.0, self.boxes.whole.work)
        for start in range(0, len(pixels), _TOGETHER):
            groups: dict[object, list[tuple[Plan, list[int]]]] = {}
            for pixel in pixels[start : start + _TOGETHER]:
                plan, numbers = self._plan(pixel), self.probes[pixel]
                work += plan.work * len(numbers)
                groups.setdefault((plan.key, len(numbers)), []).append((plan, numbers))
            for some in groups.values():
                plan, numbers = some[0]
                count = max(1, max_bytes // max(1, plan.peak_bytes * len(numbers)))
                for first in range(0, len(some) if plan.box else 0, count):
                    yield from self._together(some[first : first + count], like)
        self.passes = max(1, round(work / total))

    def _together(self, some: list[tuple[Plan, list[int]]], like: Tensor) -> Answers:
        plan, numbers = some[0]
        x = like.new_zeros(len(some), len(numbers), *sizes(plan.given)[1:])
        for i, (own, numbers) in enumerate(some):
            for j, number in enumerate(numbers):
                x[i, j, self.places[number][0] - own.given[1][0]] = 1
        y = self.boxes.local.run([plan for plan, _ in some], x)
        for i, (plan, numbers) in enumerate(some):
            assert plan.box is not None
            for j, number in enumerate(numbers):
                yield number, plan.box[1:], y[i, j]


class _InOneBox(_Way):
    """All places in the box that they reach together: for neighbours."""

    spread = 1

    def __init__(self, boxes: Boxes, places: Places) -> None:
        super().__init__(boxes, places)
        around = [(min(along), max(along) + 1) for along in zip(*places, strict=True)]
        self.plan = boxes.local.plan(((0, 1), *around))

    def share(self) -> float:
        return self.plan.work * len(self.places) / max(1.0, self.boxes.whole.work)

    def answers(self, like: Tensor, max_bytes: int) -> Answers:
        self.passes = max(1, round(self.share()))
        count = max(1, max_bytes // max(1, self.plan.peak_bytes))
        for start in range(0, len(self.places) if self.plan.box else 0, count):
            some = self.places[start : start + count]
            x = like.new_zeros(1, len(some), *sizes(self.plan.given)[1:])
            for j, place in enumerate(some):
                at = [i - first for i, (first, _) in zip(place, self.plan.given[1:], strict=True)]
                x[(0, j, *at)] = 1
            assert self.plan.box is not None
            y = self.boxes.local.run([self.plan], x)[0]
            yield slice(start, start + len(some)), self.plan.box[1:], y


class _Coloured(_Way):
    """Places of one colour by one full product."""

    def __init__(self, boxes: Boxes, places: Places) -> None:
        super().__init__(boxes, places)
        self.colours: dict[tuple[int, ...], list[int]] = {}
        for number, place in enumerate(places):
            self.colours.setdefault(boxes.colouring.colour(place), []).append(number)

    def share(self) -> float:
        return len(self.colours)

    def answers(self, like: Tensor, max_bytes: int) -> Answers:
        for numbers in self.colours.values():
            x = like.new_zeros(1, *self.boxes.input)
            for number in numbers:
                x[(0, *self.places[number])] = 1
            y = self.boxes.full(x, max_bytes)[0]
            self.passes += 1
            for number in numbers:
                box = self.boxes.colouring.box(self.places[number])
                if box is not None:
                    yield number, box, y[inside(box)]
