"""A part of a line, from one of its values to another; a line whose values are inputs, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from .line import Line
from .step import Step, Value

aten = torch.ops.aten


@torch.no_grad()
def part(
    input: Value, steps: Sequence[Step], start: Value, stop: Value, x0: Tensor
) -> tuple[Line, Tensor, Tensor]:
    """The line from `start` to `stop`, and both values at x0, as is what comes past `start`.

    ValueError where `stop` is not made of `start`.
    """
    moving, fixed = {start.number}, {input.number}  # made of start, and of the input past it
    kept: list[Step] = []
    for step in steps:
        numbers = {v.number for v in step.operands if isinstance(v, Value)}
        made = {v.number for v in step.outputs if v is not None}
        if start.number in made:
            continue
        if numbers & moving:
            moving |= made
        elif numbers & fixed:
            fixed |= made
            continue
        kept.append(step)
    if stop.number not in moving or stop.number == start.number:
        raise ValueError("the second is not made of the first")
    found: dict[int, Any] = {}

    def keep(number: int, values: list) -> None:
        if number in fixed or number in (start.number, stop.number):
            found[number] = values[number]

    Line(input, steps, stop).together([x0], keep)

    def known(v: Any) -> Any:
        return found[v.number] if isinstance(v, Value) and v.number in fixed else v

    needed = Line(start, kept, stop).steps
    line = Line(start, [step.of(known) for step in needed], stop)
    return line, found[start.number], found[stop.number]


@torch.no_grad()
def opened(line: Line, inner: Sequence[Value], x0: Tensor) -> tuple[Line, list[Tensor]]:
    """The line that reads some of its values, all different, instead of making them, and the pieces
    of its input at x0: the given line's input and these values, flat one after the other.
    """
    ends, found = [line.input, *inner], {}
    wanted = {v.number for v in ends}

    def keep(number: int, values: list) -> None:
        if number in wanted:
            found[number] = values[number]

    line.together([x0], keep)
    pieces = [found[v.number] for v in ends]
    dtype = reduce(torch.promote_types, (v.dtype for v in ends))
    count = line.size

    def value(shape: Sequence[int], dtype: torch.dtype) -> Value:
        nonlocal count
        count += 1
        return Value(count - 1, tuple(shape), dtype, line.input.device)

    sizes = [t.numel() for t in pieces]
    start = value((1, sum(sizes)), dtype)
    parts = tuple(value((1, size), dtype) for size in sizes)
    steps = [Step(aten.split_with_sizes.default, (start, sizes, 1), {}, parts, single=False)]
    for i, (part, end) in enumerate(zip(parts, ends, strict=True)):
        if i == 0 and line.input in inner:
            continue  # it is read as that
        last = end if end.dtype == dtype else value(end.shape, dtype)
        steps.append(Step(aten.reshape.default, (part, list(end.shape)), {}, (last,)))
        if last is not end:
            steps.append(Step(aten._to_copy.default, (last,), {"dtype": end.dtype}, (end,)))
    for step in line.steps:
        made = tuple(None if v is None or v.number in wanted else v for v in step.outputs)
        if any(v is not None for v in made):
            steps.append(replace(step, outputs=made))
    return Line(start, steps, line.output), pieces
