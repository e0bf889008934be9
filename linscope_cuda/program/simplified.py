"""The same program in fewer steps: copies of names, orders that are none, shapes of shapes."""

from __future__ import annotations

from typing import Any

import torch

from .line import Line
from .step import Step, Value
from .views import RESHAPES
from .writer import Writer

aten = torch.ops.aten


def simplified(program: Line) -> Line:
    """The program without steps that change nothing, and with one step for a row of reshapes."""
    writer = Writer()
    known: dict[int, Any] = {}
    shaped: dict[int, Value] = {}  # by a reshape's value, what it is a reshape of
    start = known[program.input.number] = writer.value(program.input.shape, program.input.dtype)
    for step in program.steps:
        if step.function is aten.alias.default:
            source = step.args[0]  # a constant's name is not needed, either
            known[step.output.number] = (
                known[source.number] if isinstance(source, Value) else source
            )
        elif step.function is aten.permute.default and _in_order(step):
            known[step.output.number] = known[step.args[0].number]
        elif step.function in RESHAPES and isinstance(_named(step, known), Value):
            source: Value = known[step.args[0].number]
            source = shaped.get(source.number, source)
            out = step.output
            if source.shape == out.shape:
                known[out.number] = source
                continue
            writer.label, writer.call = step.label, step.call
            new = writer.emit(
                aten.reshape.default, source, list(out.shape), like=(out.shape, out.dtype)
            )
            shaped[new.number], known[out.number] = source, new
        else:
            writer.copy(step, known)
    return writer.line(start, known[program.output.number])


def _named(step: Step, known: dict[int, Any]) -> Any:
    """The first argument, by what it is known as."""
    return known[step.args[0].number] if isinstance(step.args[0], Value) else step.args[0]


def _in_order(step: Step) -> bool:
    dims = len(step.output.shape)
    return [d % dims for d in step.args[1]] == list(range(dims))
