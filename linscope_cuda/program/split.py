"""A linear line as a local one and what goes through a few numbers about everything.

A sum or mean over all places of a channel (a norm's mean, a pool at the end) reaches every place
from there on. With g the vector of all such numbers, y = A x + B g and g = C x + D g, where A and C
are without what comes of g: F = A + U V, V = C and U = B (1 - D)^-1, whose columns are what becomes
of one number. The rank of U V is at most the number of them.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .line import Line
from .live import Live
from .simplified import simplified
from .step import Step, Value
from .writer import Writer, kind

aten = torch.ops.aten

_TOTALS = {aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim}


class Split(NamedTuple):
    """F = `local` + `given` `taken`: `taken` makes the numbers g, (1, count), of x, and `given` the
    answer of them; both None where there is no such number.
    """

    local: Line
    taken: Line | None
    given: Line | None

    @property
    def count(self) -> int:
        return 0 if self.taken is None else self.taken.output.shape[1]


def split(line: Line) -> Split:
    """A linear line in two; the steps' order and arithmetic stay as they are."""
    line = _once(simplified(line))
    live = Live(line)
    cut = [s for s in line.steps if live(s.output) and _is_global(s)]
    numbers = {s.output.number for s in cut}
    if not cut:
        return Split(line, None, None)

    def without(v: Any) -> Any:
        return _zero(v) if isinstance(v, Value) and v.number in numbers else v

    steps = [s.of(without) for s in line.steps]
    writer = Writer(line)
    writer.steps += steps
    y = line.output
    if y.number in numbers:  # nothing goes past them
        y = writer.emit(aten.mul.Tensor, y, 0.0, like=kind(y))
    local = writer.line(line.input, y)
    return Split(local, _taken(line, steps, cut), _given(line, cut))


def _is_global(step: Step) -> bool:
    """Whether it adds up all places of channels, of which there are many."""
    x = step.args[0]
    if step.function not in _TOTALS or len(x.shape) < 3:
        return False
    dims = step.args[1] if len(step.args) > 1 else step.kwargs.get("dim")
    dims = [dims] if isinstance(dims, int) else dims or range(len(x.shape))
    reduced = {d % len(x.shape) for d in dims}
    places = set(range(2, len(x.shape)))
    return places <= reduced and prod(x.shape[2:]) > 1


def _zero(v: Value) -> Tensor:
    return torch.zeros((), dtype=v.dtype, device=v.device).expand(v.shape)


def _once(line: Line) -> Line:
    """Equal sums of equal values, written once: a norm may ask for its mean several times."""
    known: dict[tuple, Value] = {}
    names: dict[int, Value] = {}
    steps = []
    for step in line.steps:
        step = step.of(lambda v: names.get(v.number, v) if isinstance(v, Value) else v)
        if step.function in _TOTALS:
            key = (step.function, repr((step.args, step.kwargs)), step.output.dtype)
            if key in known:
                names[step.output.number] = known[key]
                continue
            known[key] = step.output
        steps.append(step)
    return Line(line.input, steps, names.get(line.output.number, line.output))


def _taken(line: Line, steps: list[Step], cut: list[Step]) -> Line:
    """The numbers of x alone, without what comes of those before."""
    writer = Writer(line)
    writer.steps += steps
    dtype = line.output.dtype
    flat = []
    for step in cut:
        v = step.output
        shape = (1, prod(v.shape))
        row = writer.emit(aten.reshape.default, v, list(shape), like=(shape, v.dtype))
        flat.append(writer.cast(row, dtype))
    shape = (1, sum(v.shape[1] for v in flat))
    end = writer.emit(aten.cat.default, flat, 1, like=(shape, dtype)) if len(flat) > 1 else flat[0]
    return writer.line(line.input, end)


def _given(line: Line, cut: list[Step]) -> Line:
    """The answer of the numbers, and of those that come of them, where x is zero."""
    writer = Writer(line)
    counts = [prod(s.output.shape) for s in cut]
    start = writer.value((1, sum(counts)), line.output.dtype)
    known: set[int] = set()  # what depends on the numbers
    live = Live(line)
    at = {s.output.number: (sum(counts[:i]), counts[i]) for i, s in enumerate(cut)}

    def here(v: Any) -> Any:
        dead = isinstance(v, Value) and live(v) and v.number not in known
        return _zero(v) if dead else v

    for step in line.steps:
        moves = any(isinstance(v, Value) and v.number in known for v in step.operands)
        if not any(map(live, step.outputs)):
            writer.steps.append(step)
            continue
        own = step.of(here)
        if step.output.number in at:
            _add_number(writer, start, own, at[step.output.number], moves)
        elif moves:
            writer.steps.append(own)
        else:
            continue
        known |= {v.number for v in step.outputs if v is not None}
    return writer.line(start, line.output)


def _add_number(writer: Writer, start: Value, step: Step, at: tuple[int, int], moves: bool) -> None:
    """A step's value, plus its part of the numbers."""
    writer.at(step)
    first, count = at
    v, before = step.output, len(writer.steps)
    row = writer.emit(
        aten.slice.Tensor, start, 1, first, first + count, 1, like=((1, count), start.dtype)
    )
    own = writer.emit(aten.reshape.default, writer.cast(row, v.dtype), list(v.shape), like=kind(v))
    if moves:
        made = writer.value(v.shape, v.dtype)
        writer.steps.append(
            Step(step.function, step.args, step.kwargs, (made,), step.label, step.call)
        )
        own = writer.emit(aten.add.Tensor, made, own, like=kind(v))
    writer.name(own, v, before)
