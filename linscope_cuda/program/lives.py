"""How long the values of a line are needed, and which of them lie in one memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .step import Step, Value
from .views import ORDERS, RESHAPES

aten = torch.ops.aten


class Lives:
    """By the numbers of values: `owner`, the value whose memory one lies in, and `last`, the step
    that reads it for the last time, or any value in its memory.

    A view's memory is that of its first argument; a reshape's may be.
    """

    def __init__(self, input: Value, steps: Sequence[Step], output: Value):
        self._owner: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self._read: dict[int, int] = {}  # by values, whatever else lies in their memory
        self._kept = {input.number}  # memory that is not the run's own
        for i, step in enumerate(steps):
            if _shares(step.function):
                self._share(step)
            for v in (*step.operands, *step.outputs):
                if isinstance(v, Value):
                    self.last[self.owner(v)] = self._read[v.number] = i
        self.last[self.owner(output)] = self._read[output.number] = len(steps)

    def _share(self, step: Step) -> None:
        first = step.args[0]
        for v in filter(None, step.outputs):
            if not isinstance(first, Value):
                self._kept.add(v.number)  # a constant's
            else:
                self._owner[v.number] = self.owner(first)
                if step.function not in _APART:
                    self._kept.add(self.owner(first))

    def owner(self, v: Value) -> int:
        return self._owner.get(v.number, v.number)

    def owns(self, v: Value) -> bool:
        """Whether a value has memory of its own."""
        return v.number not in self._owner and v.number not in self._kept

    def is_own(self, v: Value) -> bool:
        """Whether a value lies in memory that the run made."""
        return self.owner(v) not in self._kept

    def unread(self, i: int, step: Step) -> list[int]:
        """The values that no step after this one reads."""
        touched = {v.number for v in (*step.operands, *step.outputs) if isinstance(v, Value)}
        return [n for n in touched if self._read[n] == i]

    def spent(self, i: int, step: Step) -> list[int]:
        """The owners whose memory no step after this one reads."""
        touched = {self.owner(v) for v in (*step.operands, *step.outputs) if isinstance(v, Value)}
        return [n for n in touched if self.last[n] == i]

    def may_write(self, i: int, step: Step) -> bool:
        """Whether a step may write its result over its first argument."""
        first, *others = step.args
        if not isinstance(first, Value):
            return False
        own, output = self.owner(first), step.output
        same = (first.shape, first.dtype) == (output.shape, output.dtype)
        alone = all(self.owner(v) != own for v in others if isinstance(v, Value))
        return same and alone and own not in self._kept and self.last[own] == i


# Views that show each entry once: what may be written over.
_APART = {*RESHAPES, *ORDERS, aten.slice.Tensor, aten.select.int, aten.alias.default}
_APART |= {aten.detach.default}


def _shares(function: Any) -> bool:
    views = any(r.alias_info is not None for r in function._schema.returns)
    return views or function is aten.reshape.default
