"""Writing a straight line down, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from .line import Line
from .step import Step, Value
from .tracer import Tracer

aten = torch.ops.aten

Kind = tuple[Sequence[int], torch.dtype]  # of a value: its shape and dtype


class Writer:
    """Steps in the making; the labels are those of the step of another line that is at work.

    Values are numbered from where those of the other line end, which stay its own, and lie on its
    device.
    """

    def __init__(self, line: Line) -> None:
        self.steps: list[Step] = []
        self.count = line.size
        self.device = line.input.device
        self.label, self.call = "", -1

    def at(self, step: Step) -> None:
        """What is written next belongs to a step of the other line."""
        self.label, self.call = step.label, step.call

    def value(self, shape: Iterable[int], dtype: torch.dtype) -> Value:
        self.count += 1
        return Value(self.count - 1, tuple(shape), dtype, self.device)

    def emit(self, function: Any, *args: Any, like: Kind, **kwargs: Any) -> Value:
        """A step of one result, of the shape and dtype `like`."""
        output = self.value(*like)
        self.steps.append(Step(function, args, kwargs, (output,), self.label, self.call))
        return output

    def name(self, made: Value, value: Value, since: int) -> None:
        """Lets `made`, if no step before step `since` did, be the value of that name."""
        last = self.steps[-1] if len(self.steps) > since else None
        if last is not None and last.outputs == (made,):
            self.steps[-1] = replace(last, outputs=(value,))
        else:
            alias = (aten.alias.default, (made,), {}, (value,))
            self.steps.append(Step(*alias, self.label, self.call))

    def times(self, x: Value, factor: Any) -> Value:
        """x multiplied with a number."""
        if factor == 1:
            return x
        if factor == -1:
            return self.emit(aten.neg.default, x, like=kind(x))
        return self.emit(aten.mul.Tensor, x, factor, like=kind(x))

    def cast(self, x: Value, dtype: torch.dtype) -> Value:
        """x in a dtype."""
        if x.dtype == dtype:
            return x
        return self.emit(aten._to_copy.default, x, like=(x.shape, dtype), dtype=dtype)

    def insert(self, f: Callable[..., Any], *inputs: Value) -> list[Any]:
        """The steps of f(*inputs), found by running it on zeros: the values that it returns, None
        for what does not depend on any.
        """
        tracer = Tracer()
        zeros = [torch.zeros(v.shape, dtype=v.dtype, device=v.device) for v in inputs]
        with torch.no_grad(), tracer:
            made = f(*map(tracer.input, zeros))
        made = list(made) if isinstance(made, tuple | list) else [made]
        steps, given, values = tracer.lines(made)
        known = {v.number: w for v, w in zip(given, inputs, strict=True)}
        for step in steps:
            self._copy(step, known)
        return [None if v is None else known[v.number] for v in values]

    def _copy(self, step: Step, known: dict[int, Value]) -> None:
        """A step whose values are `known` here by their numbers there."""
        outputs = tuple(None if v is None else self.value(v.shape, v.dtype) for v in step.outputs)
        here = step.of(lambda v: known[v.number] if isinstance(v, Value) else v)
        self.steps.append(replace(here, outputs=outputs, label=self.label, call=self.call))
        for old, new in zip(step.outputs, outputs, strict=True):
            if old is not None and new is not None:
                known[old.number] = new

    def line(self, input: Value, output: Value) -> Line:
        return Line(input, self.steps, output)


def kind(v: Value) -> Kind:
    """What a value is like."""
    return v.shape, v.dtype
