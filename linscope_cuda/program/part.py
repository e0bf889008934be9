"""A part of a line, from one of its values to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .line import Line
from .step import Step, Value


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
