"""A linear line run only where its values are not zero."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..line import Line
from ..live import Live
from ..simplified import simplified
from ..step import Value
from .box import Box, sizes, whole
from .merged import merged
from .part import Part, Reads
from .rules import bind


class _Constants(Live):
    """Which values depend on the input, and the others themselves."""

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self._kept: dict[int, Tensor] = {}

    def constant(self, v: Any) -> Tensor:
        if not isinstance(v, Value):
            return v
        if v.number not in self._kept:
            self._kept[v.number] = self._constant(v)
        return self._kept[v.number]


@dataclass(frozen=True, eq=False)
class Plan:
    """What a line does with an input that is zero outside of `given`: the parts of its steps (None:
    zero), and `box`, outside of which its answer is zero (None: everywhere).

    Plans with equal keys run together. `work` is the multiplications, `peak_bytes` the most bytes
    of values that are held at a time, for one probe.
    """

    given: Box
    parts: list[Part | None]
    box: Box | None
    key: Hashable
    work: float
    peak_bytes: int


class Local:
    """A linear line, F x, that runs in boxes.

    >>> plan = local.plan(((0, 1), (0, 3), (7, 8), (9, 10)))    # all channels of a pixel
    >>> y = local.run([plan], x[None])    # F x within plan.box
    """

    def __init__(self, line: Line) -> None:
        self.line = line = merged(simplified(line))
        self.live = _Constants(line)
        self.steps = [s for s in line.steps if any(map(self.live, s.outputs))]
        self._reads = [Reads.of(s, self.live) for s in self.steps]
        self._output = line.output.number

    @cached_property
    def _bound(self) -> list[Any]:
        return [bind(s, self.live) for s in self.steps]

    @cached_property
    def _spent(self) -> list[list[int]]:
        """The values that no step after each one reads."""
        last: dict[int, int] = {}
        for i, reads in enumerate(self._reads):
            for v in reads.values:
                last[v.number] = i
        spent: list[list[int]] = [[] for _ in self.steps]
        for number, i in last.items():
            if number != self._output:
                spent[i].append(number)
        return spent

    def plan(self, given: Box) -> Plan:
        """What the line does with an input that is zero outside of a box."""
        boxes: dict[int, Box] = {self.line.input.number: given}
        parts: list[Part | None] = []
        keys: list[Hashable] = [tuple(sizes(given))]
        work, alive, peak = 0.0, {}, 0
        for step, reads, bound, spent in zip(
            self.steps, self._reads, self._bound, self._spent, strict=True
        ):
            part = bound([boxes.get(v.number) for v in reads.values])
            parts.append(part)
            if part is None:
                keys.append(None)
                continue
            keys.append((part.key, tuple(sizes(part.box))))
            work += part.work
            for v in filter(None, step.outputs):
                boxes[v.number] = part.box if step.single else whole(v.shape)
                alive[v.number] = prod(sizes(boxes[v.number])) * v.dtype.itemsize
            scratch = 0
            convolution = step.function is torch.ops.aten.convolution.default
            if convolution and not self.live(step.args[1]):  # it lays out all anew
                held = (alive.get(v.number, 0) for v in (*reads.values, step.output))
                scratch = sum(held) + self.live.constant(step.args[1]).nbytes
            peak = max(peak, sum(alive.values()) + scratch)
            for number in spent:
                alive.pop(number, None)
        box = boxes.get(self._output)
        return Plan(given, parts, box, tuple(keys), work, peak)

    def run(self, plans: Sequence[Plan], x: Tensor) -> Tensor:
        """F x of probes at places with equal plans, within the boxes of one sample: from
        (places, probes, *) to (places, probes, *).
        """
        cuts = [[cut() for part in p.parts if part for cut in part.cuts] for p in plans]
        with torch.no_grad():
            return self._run(plans, x, cuts)

    def _run(self, plans: Sequence[Plan], x: Tensor, cuts: list[list[Tensor]]) -> Tensor:
        plan = plans[0]
        if len(plans) > 1:
            stacked = [torch.stack(each) for each in zip(*cuts, strict=True)]

            def at_place(x: Tensor, *own: Tensor) -> Tensor:
                return self._probes(plan, x, own)

            return torch.vmap(at_place)(x, *stacked)
        return self._probes(plan, x[0], cuts[0])[None]

    def _probes(self, plan: Plan, x: Tensor, cuts: Sequence[Tensor]) -> Tensor:
        if len(x) == 1:
            return self._one(plan, x, cuts)
        return torch.vmap(lambda one: self._one(plan, one[None], cuts)[0])(x)

    def _one(self, plan: Plan, x: Tensor, cuts: Sequence[Tensor]) -> Tensor:
        """The answer to one probe, of one sample: (1, *sizes)."""
        values: dict[int, Tensor] = {self.line.input.number: x}
        left = iter(cuts)
        for step, reads, part, spent in zip(
            self.steps, self._reads, plan.parts, self._spent, strict=True
        ):
            if part is not None:
                own = [next(left) for _ in part.cuts]
                y = part.run([values.get(v.number) for v in reads.values], own)
                made = [y] if step.single else y
                for v, t in zip(step.outputs, made, strict=True):
                    if v is not None:
                        values[v.number] = t
            for number in spent:
                values.pop(number, None)
        return values[self._output]
