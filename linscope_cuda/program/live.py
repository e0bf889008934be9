"""Which values of a line depend on its input, and what the others are."""

from __future__ import annotations

from typing import Any

import torch

from .line import Line
from .step import Step, Value


class Live:
    """Tells, called with a value, whether it depends on the line's input."""

    def __init__(self, line: Line):
        self._found = {line.input.number}
        self._makers: dict[int, Step] = {}  # of the values that do not
        for step in line.steps:
            numbers = {v.number for v in step.outputs if v is not None}
            if any(map(self, step.operands)):
                self._found |= numbers
            else:
                self._makers |= dict.fromkeys(numbers, step)

    def __call__(self, v: Any) -> bool:
        return isinstance(v, Value) and v.number in self._found

    @torch.no_grad()
    def resolved(self, step: Step) -> Step:
        """The step with constants in place of values that do not depend on the input."""

        def known(v: Any) -> Any:
            return v if not isinstance(v, Value) or self(v) else self._constant(v)

        return step.of(known)

    def _constant(self, v: Value) -> torch.Tensor:
        step = self.resolved(self._makers[v.number])
        made = step.function(*step.args, **step.kwargs)
        return made if step.single else made[step.outputs.index(v)]
