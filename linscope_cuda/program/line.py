"""A straight line of torch functions from one tensor to one tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .calls import called
from .lives import Lives
from .step import Step, Value, leaves, substituted

Values = list[Any]  # by their numbers


class Line:
    """y = program(x): `steps` in their order, each of earlier values; no step writes into another's
    value.
    """

    def __init__(self, input: Value, steps: Sequence[Step], output: Value):
        self.input = input
        self.output = output
        self.steps = _needed(steps, output)

    def __reduce__(self):
        return Line, (self.input, self.steps, self.output)

    def __call__(self, x: Tensor) -> Tensor:
        # Nothing is differentiated here, and no value is seen outside: torch need not look whether,
        # nor count what is written.
        with torch.no_grad(), torch._C._AutoDispatchBelowADInplaceOrView():
            y = self._run(x)
        # The answer is the caller's own: not his input, nor a constant.
        return y if self.lives.is_own(self.output) else y.clone()

    def _run(self, x: Tensor) -> Tensor:
        values: Values = [None] * self.size
        values[self.input.number] = x
        for run in self._quick:
            run(values)
        return values[self.output.number]

    def run(self, x: Tensor, at: Callable[[str, int], object]) -> Tensor:
        """The line's answer, told before each step whose it is."""
        values: Values = [None] * self.size
        values[self.input.number] = x
        for step, run in zip(self.steps, self._runs, strict=True):
            at(step.label, step.call)
            run(values)
        return values[self.output.number]

    def together(self, xs: Sequence[Tensor], watch: Callable[..., None]) -> list[Tensor]:
        """The answers to several inputs, step by step; `watch(number, *tables)` is told each value
        of the input and of every step, and the tables of values, in which it may replace them.
        """
        tables: list[Values] = [[None] * self.size for _ in xs]
        for values, x in zip(tables, xs, strict=True):
            values[self.input.number] = x
        watch(self.input.number, *tables)
        for step, run in zip(self.steps, self._runs, strict=True):
            for values in tables:
                run(values)
            for v in step.outputs:
                if v is not None:
                    watch(v.number, *tables)
        return [values[self.output.number] for values in tables]

    @cached_property
    def size(self) -> int:
        """More than the number of any value."""
        numbers = [v.number for s in self.steps for v in s.outputs if v is not None]
        return max([self.input.number, *numbers]) + 1

    @cached_property
    def lives(self) -> Lives:
        """How long its values are needed, and where they lie."""
        return Lives(self.input, self.steps, self.output)

    @cached_property
    def _quick(self) -> list[Callable[[Values], None]]:
        return self._runners(writing=True)

    @cached_property
    def _runs(self) -> list[Callable[[Values], None]]:
        return self._runners(writing=False)

    def _runners(self, writing: bool) -> list[Callable[[Values], None]]:
        lives = self.lives
        return [
            _runner(step, lives.unread(i, step), writing and lives.may_write(i, step))
            for i, step in enumerate(self.steps)
        ]

    def followed(self) -> Iterator[Value]:
        """The input, and every value that depends on it."""
        numbers = {self.input.number}
        yield self.input
        for step in self.steps:
            if any(v.number in numbers for v in step.operands if isinstance(v, Value)):
                made = [v for v in step.outputs if v is not None]
                numbers.update(v.number for v in made)
                yield from made

    def constants(self) -> list[Tensor]:
        """Every tensor that the steps hold, each once."""
        found = {id(t): t for s in self.steps for t in s.operands if isinstance(t, Tensor)}
        return list(found.values())


def flattened(input: Value, steps: Sequence[Step], value: Value) -> Line:
    """The line that ends with one of its values, as (1, entries)."""
    shape = (1, torch.Size(value.shape).numel())
    numbers = [v.number for s in steps for v in s.outputs if v is not None]
    flat = Value(max([input.number, *numbers]) + 1, shape, value.dtype, value.device)
    end = Step(torch.ops.aten.reshape.default, (value, list(shape)), {}, (flat,))
    return Line(input, [*steps, end], flat)


def _needed(steps: Iterable[Step], output: Value) -> list[Step]:
    """The steps that the output is made of."""
    wanted, kept = {output.number}, []
    for s in reversed(list(steps)):
        used = [v is not None and v.number in wanted for v in s.outputs]
        if any(used):
            kept.append(s if all(used) else _with(s, used))
            wanted |= {v.number for v in s.operands if isinstance(v, Value)}
    return kept[::-1]


def _with(step: Step, used: list[bool]) -> Step:
    """A step of several results, some of which nobody reads."""
    outputs = tuple([v if u else None for v, u in zip(step.outputs, used, strict=True)])
    return step if outputs == step.outputs else replace(step, outputs=outputs)


def _runner(step: Step, spent: list[int], writes: bool) -> Callable[[Values], None]:
    """The step as a function of the table of values; `spent` are those that nobody reads later."""
    function, args, kwargs = called(step.function, writes), step.args, step.kwargs
    flat = [(i, a.number) for i, a in enumerate(args) if isinstance(a, Value)]
    nested = [i for i, a in enumerate(args) if isinstance(a, list) and any(map(_is_value, a))]
    named = any(map(_is_value, leaves(kwargs)))
    outputs = [(i, v.number) for i, v in enumerate(step.outputs) if v is not None]
    first, single = outputs[0][1], step.single

    def run(values: Values) -> None:
        def known(v: Any) -> Any:
            return values[v.number] if isinstance(v, Value) else v

        given = list(args)
        for i, number in flat:
            given[i] = values[number]
        for i in nested:
            given[i] = [known(v) for v in args[i]]
        y = function(*given, **(substituted(kwargs, known) if named else kwargs))
        if single:
            values[first] = y
        else:
            for i, number in outputs:
                values[number] = y[i]
        for number in spent:
            values[number] = None

    return run


def _is_value(v: Any) -> bool:
    return isinstance(v, Value)
