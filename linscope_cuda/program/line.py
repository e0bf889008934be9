"""A program: a straight line of torch functions from one tensor to one tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

# Of a step's own value, when it is asked for by number.
Values = list[Any]


@dataclass(frozen=True)
class Value:
    """What a step makes, or the program's input, by its number."""

    number: int
    shape: tuple[int, ...] = field(compare=False)
    dtype: torch.dtype = field(compare=False)

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"%{self.number}"


@dataclass(frozen=True)
class Step:
    """One function of earlier values and of constants: `outputs` = function(*args, **kwargs).

    `label` is the network's call that it belongs to, as `calls()` names it; `call` its number.
    """

    function: Any
    args: tuple
    kwargs: dict[str, Any]
    outputs: tuple[Value | None, ...]
    label: str = ""
    call: int = -1
    single: bool = True  # whether the function returns one tensor, not a tuple

    @property
    def output(self) -> Value:
        """Its value, of a function that has one."""
        return next(v for v in self.outputs if v is not None)

    def operands(self) -> Iterator[Any]:
        """Values and constant tensors among the arguments, in their order."""
        return leaves((self.args, self.kwargs))


def leaves(value: Any) -> Iterator[Any]:
    """Values and tensors within nested arguments."""
    if isinstance(value, Value | Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for v in value:
            yield from leaves(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from leaves(v)


def substituted(value: Any, given: Callable[[Any], Any]) -> Any:
    """Nested arguments with `given(v)` for each Value or tensor v."""
    if isinstance(value, Value | Tensor):
        return given(value)
    if isinstance(value, tuple | list):
        return type(value)([substituted(v, given) for v in value])
    if isinstance(value, dict):
        return {k: substituted(v, given) for k, v in value.items()}
    return value


class Line:
    """y = program(x): `steps` in their order, each of earlier values; no step writes into another's
    value.
    """

    def __init__(self, input: Value, steps: Sequence[Step], output: Value):
        self.input = input
        self.output = output
        self.steps = _needed(steps, output)

    def __call__(self, x: Tensor) -> Tensor:
        values: Values = [None] * self.size
        values[self.input.number] = x
        for run in self._runs:
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
    def _runs(self) -> list[Callable[[Values], None]]:
        last = {v.number: i for i, s in enumerate(self.steps) for v in s.operands() if isinstance(v, Value)}
        last[self.output.number] = len(self.steps)
        return [
            _runner(s, [n for n, at in last.items() if at == i])
            for i, s in enumerate(self.steps)
        ]

    def constants(self) -> list[Tensor]:
        """Every tensor that the steps hold, each once."""
        found = {id(t): t for s in self.steps for t in s.operands() if isinstance(t, Tensor)}
        return list(found.values())

    def __repr__(self) -> str:
        rows = []
        for s in self.steps:
            made = ", ".join(map(str, filter(None, s.outputs)))
            shape = "x".join(map(str, s.output.shape))
            reads = ", ".join(
                str(v) if isinstance(v, Value) else "x".join(map(str, v.shape)) or "1" for v in s.operands()
            )
            rows.append(f"{made:>6} {s.function!s:34} {shape:>16}  {reads:40} {s.label}")
        return "\n".join(rows)


def flattened(input: Value, steps: Sequence[Step], value: Value) -> Line:
    """The line that ends with one of its values, as (1, entries)."""
    shape = (1, torch.Size(value.shape).numel())
    numbers = [v.number for s in steps for v in s.outputs if v is not None]
    flat = Value(max([input.number, *numbers]) + 1, shape, value.dtype)
    end = Step(torch.ops.aten.reshape.default, (value, list(shape)), {}, (flat,))
    return Line(input, [*steps, end], flat)


def _needed(steps: Iterable[Step], output: Value) -> list[Step]:
    """The steps that the output is made of."""
    wanted, kept = {output.number}, []
    for s in reversed(list(steps)):
        if any(v is not None and v.number in wanted for v in s.outputs):
            kept.append(s)
            wanted |= {v.number for v in s.operands() if isinstance(v, Value)}
    return kept[::-1]


def _runner(step: Step, spent: list[int]) -> Callable[[Values], None]:
    """The step as a function of the table of values; `spent` are those that nobody reads later."""
    function = step.function
    args, kwargs = step.args, step.kwargs
    flat = [(i, a.number) for i, a in enumerate(args) if isinstance(a, Value)]
    nested = [i for i, a in enumerate(args) if not isinstance(a, Value) and any(isinstance(v, Value) for v in leaves(a))]
    named = any(isinstance(v, Value) for v in leaves(kwargs))
    out = [(i, v.number) for i, v in enumerate(step.outputs) if v is not None]
    single = step.single
    first = out[0][1] if out else -1

    def run(values: Values) -> None:
        given = list(args)
        for i, number in flat:
            given[i] = values[number]
        for i in nested:
            given[i] = substituted(args[i], lambda v: values[v.number] if isinstance(v, Value) else v)
        k = kwargs
        if named:
            k = substituted(kwargs, lambda v: values[v.number] if isinstance(v, Value) else v)
        y = function(*given, **k)
        if single:
            values[first] = y
        else:
            for i, number in out:
                values[number] = y[i]
        for number in spent:
            values[number] = None

    return run
