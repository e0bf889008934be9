"""Products whose values do not fit in memory: in tiles of a picture, each with what it reaches.

A line is cut where a single value passes from one part to the next. Parts that fit run as they are.
In the others the input is the sum of its tiles, and the answers to those, each in a box, add up.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..program import Line
from ..program.live import Live
from ..program.local import Local, Plan
from ..program.local.box import Box, inside, whole
from ..program.memory import peak_bytes
from ..program.simplified import simplified


class Tiles:
    """A linear line in parts, of which none holds more than `max_bytes` at a time beside its input
    and its answer, where its steps are local enough.

    >>> y = Tiles(line, 2**30)(x)
    """

    def __init__(self, line: Line, max_bytes: int) -> None:
        self.parts: list[Line | _Tiled] = []
        for part, large in _merged(_parts(simplified(line)), max_bytes):
            tiled = _Tiled(part, max_bytes) if large else None
            self.parts.append(part if tiled is None or len(tiled.plans) < 2 else tiled)

    def __call__(self, x: Tensor) -> Tensor:
        """F x of one probe, (1, *input)."""
        for part in self.parts:
            x = part(x)
        return x


class _Tiled:
    """A part of a line, tile by tile."""

    def __init__(self, line: Line, max_bytes: int) -> None:
        self.line, self.local, self.max_bytes = line, Local(line), max_bytes
        self.plans = list(self._fitting(self.local.plan(whole(line.input.shape))))

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        y = x.new_zeros(self.line.output.shape, dtype=self.line.output.dtype)
        for plan in self.plans:
            if plan.box is not None:
                tile = x[inside(plan.given)]
                y[inside(plan.box)] += self.local.run([plan], tile[None])[0]
        return y

    def _fitting(self, plan: Plan) -> Iterator[Plan]:
        """Tiles of a box that fit, or that cannot be made smaller."""
        halves = [] if plan.peak_bytes <= self.max_bytes else self._halves(plan)
        if not halves:
            yield plan
        for half in halves:
            yield from self._fitting(half)

    def _halves(self, plan: Plan) -> list[Plan]:
        """The box in two, along the dimension in which that helps most; none where it does not."""
        found = []
        for dim, (start, end) in enumerate(plan.given):
            # Channels are mixed by the first convolution.
            if dim > 1 and end - start > 1:
                middle = (start + end) // 2
                halves = [
                    self.local.plan(_with(plan.given, dim, ends))
                    for ends in ((start, middle), (middle, end))
                ]
                found.append((max(half.peak_bytes for half in halves), halves))
        if not found:
            return []
        most, halves = min(found, key=lambda pair: pair[0])
        return halves if most < 0.95 * plan.peak_bytes else []


def _with(box: Box, dim: int, ends: tuple[int, int]) -> Box:
    return (*box[:dim], ends, *box[dim + 1 :])


def _parts(line: Line) -> list[Line]:
    """The line, cut after each step whose value is all that later steps read of what was before."""
    live = Live(line)
    still = [s for s in line.steps if not any(map(live, s.outputs))]
    moving = [s for s in line.steps if any(map(live, s.outputs))]
    last = {v.number: i for i, s in enumerate(moving) for v in s.operands if live(v)}
    parts, start, since = [], line.input, 0
    open_values: set[int] = {line.input.number}
    for i, step in enumerate(moving):
        open_values |= {v.number for v in step.outputs if v is not None}
        open_values = {n for n in open_values if last.get(n, -1) > i}
        end = i == len(moving) - 1
        if end or (step.single and open_values == {step.output.number}):
            value = line.output if end else step.output
            parts.append(Line(start, [*still, *moving[since : i + 1]], value))
            start, since = value, i + 1
    return parts or [line]


def _merged(parts: list[Line], max_bytes: int) -> Iterator[tuple[Line, bool]]:
    """Neighbours that are alike in whether they fit as one, and whether they do not."""
    rows: list[tuple[list[Line], bool]] = []
    for part in parts:
        held = 0 if part is parts[0] else part.input.nbytes
        large = held + peak_bytes(part) > max_bytes
        if rows and rows[-1][1] == large:
            rows[-1][0].append(part)
        else:
            rows.append(([part], large))
    for row, large in rows:
        steps = list({id(s): s for part in row for s in part.steps}.values())
        yield Line(row[0].input, steps, row[-1].output), large
