"""The same program in fewer steps: copies of names, orders that are none, shapes of shapes, rows of
rows.
"""

from __future__ import annotations

from typing import Any

import torch

from .line import Line
from .step import Step, Value
from .views import RESHAPES

aten = torch.ops.aten


def simplified(program: Line) -> Line:
    """The program without steps that change nothing, with one step for a row of reshapes, and with
    what was put together before as one part of what it is put together with.

    Values keep their numbers.
    """
    simpler = _Simpler()
    for step in program.steps:
        simpler.add(step.of(simpler.named))
    return Line(program.input, simpler.steps, simpler.named(program.output))


class _Simpler:
    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.known: dict[int, Any] = {}  # by a value's number, what else it is
        self.shaped: dict[int, Value] = {}  # by a reshape's, what it is a reshape of
        self.rows: dict[tuple, Value] = {}  # by the parts that were put together

    def named(self, v: Any) -> Any:
        return self.known.get(v.number, v) if isinstance(v, Value) else v

    def add(self, step: Step) -> None:
        source = step.args[0] if step.args else None
        if step.function is aten.alias.default:
            self.known[step.output.number] = source  # a constant's name is not needed, either
        elif step.function is aten.permute.default and _in_order(step):
            self.known[step.output.number] = source
        elif step.function in RESHAPES and isinstance(source, Value):
            self._reshape(step, source)
        elif step.function is aten.cat.default:
            self._row(step)
        else:
            self.steps.append(step)

    def _reshape(self, step: Step, source: Value) -> None:
        source = self.shaped.get(source.number, source)
        out = step.output
        if source.shape == out.shape:
            self.known[out.number] = source
            return
        self.shaped[out.number] = source
        args = (source, list(out.shape))
        made = Step(aten.reshape.default, args, {}, (out,), step.label, step.call)
        self.steps.append(made)

    def _row(self, step: Step) -> None:
        """torch.cat([a, b, c]) as torch.cat([ab, c]), where ab is there: what comes back to a and b
        comes together.
        """
        parts, *dim = step.args
        along, names = (*dim, *step.kwargs.items()), tuple(map(_name, parts))
        kept = step
        self.rows[along, names] = step.output
        for count in range(len(parts) - 1, 1, -1):
            before = self.rows.get((along, names[:count]))
            if before is not None and before.dtype == step.output.dtype:
                args = ([before, *parts[count:]], *dim)
                kept = Step(step.function, args, step.kwargs, step.outputs, step.label, step.call)
                break
        self.steps.append(kept)


def _name(part: Any) -> Any:
    return part if isinstance(part, Value) else id(part)


def _in_order(step: Step) -> bool:
    dims = len(step.output.shape)
    return [d % dims for d in step.args[1]] == list(range(dims))
