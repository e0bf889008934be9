"""The transposed program: the steps in reverse order, each as its transpose.

The common functions have a rule. Any other's transpose is made of its own derivative, which for a
linear function does not depend on where it is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from . import derivative
from .line import Line
from .live import Live
from .step import Step, Value, leaves, substituted
from .transpositions import RULES
from .writer import Writer, kind

aten = torch.ops.aten


def transposed(program: Line) -> Line:
    """F^T u of a linear program F x.

    >>> transposed(transposed(program))    # the program again
    """
    return Transposition(program).line


class NoTranspose(NotImplementedError):
    """A step whose function torch cannot differentiate; the message names the call."""


class Transposition:
    """The transposed program, and `meets`: by the numbers of the values of the program, the values
    of the transposed one that come back to them.

    To both terms of a sum comes back one and the same; with `apart`, each has a value of its own.
    """

    def __init__(self, program: Line, apart: bool = False):
        self.source, self.apart = program, apart
        self.writer = writer = Writer(program)
        self.live = Live(program)
        self.meets: dict[int, Value] = {}
        self.taken: set[Value] = set()
        start = self.meets[program.output.number] = writer.value(
            program.output.shape, program.output.dtype
        )
        writer.steps += [s for s in program.steps if not any(map(self.live, s.outputs))]
        for step in reversed(program.steps):
            if any(map(self.live, step.outputs)):
                writer.at(step)
                self._reverse(step)
        end = self.meets.get(program.input.number)
        if end is None:
            end = writer.emit(
                aten.zeros.default,
                list(program.input.shape),
                like=kind(program.input),
                dtype=program.input.dtype,
                device=program.input.device,
            )
        self.line = writer.line(start, end)

    def _reverse(self, step: Step) -> None:
        us = [None if v is None else self.meets.get(v.number) for v in step.outputs]
        if all(u is None for u in us):
            return
        rule = RULES.get(step.function)
        real = not any(v.dtype.is_complex for v in leaves((step.args, step.outputs)))
        only = us[0]
        if rule is not None and step.single and real and only is not None:
            back = rule(self.writer, step, only, self.live)
        else:
            back = self._by_derivative(step, us)
        for value, u in back:
            if self.apart and u in self.taken:
                u = self.writer.emit(aten.alias.default, u, like=kind(u))
            self.taken.add(u)
            before = self.meets.get(value.number)
            if before is not None:
                u = self.writer.emit(aten.add.Tensor, before, u, like=kind(value))
            self.meets[value.number] = u

    def _by_derivative(self, step: Step, us: list[Value | None]) -> Iterator[tuple[Value, Value]]:
        inputs = list({v.number: v for v in step.operands if self.live(v)}.values())
        at = {v.number: i for i, v in enumerate(inputs)}
        outputs = [i for i, u in enumerate(us) if u is not None]
        asked = [u for u in us if u is not None]
        constants = list(
            {
                v.number: v for v in step.operands if isinstance(v, Value) and not self.live(v)
            }.values()
        )

        def f(values: dict[int, Any], *xs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            def given(v: Any) -> Any:
                if not isinstance(v, Value):
                    return v
                return xs[at[v.number]] if self.live(v) else values[v.number]

            y = step.function(*substituted(step.args, given), **substituted(step.kwargs, given))
            return tuple((y if isinstance(y, tuple | list) else [y])[i] for i in outputs)

        def pull_back(dense: bool, *given: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            values = {v.number: t for v, t in zip(constants, given[len(outputs) :], strict=True)}
            zeros = [
                torch.zeros((), dtype=v.dtype, device=v.device).expand(v.shape) for v in inputs
            ]
            at = [z.contiguous() for z in zeros] if dense else zeros
            return derivative.pull_back(partial(f, values), tuple(at), given[: len(outputs)])

        def inserted(dense: bool) -> list[Any]:
            given = (*asked, *constants)
            return self.writer.insert(partial(pull_back, dense), *given)

        try:
            # Zeros without memory: what the derivative keeps of them takes none, either. Some
            # functions, as view_as_complex, want them as they would lie in memory.
            try:
                found = inserted(dense=False)
            except RuntimeError:
                found = inserted(dense=True)
        except (RuntimeError, NotImplementedError) as error:
            where = step.label or str(step.function)
            raise NoTranspose(f"{where} has no transpose: {_line(error)}") from error
        for value, u in zip(inputs, found, strict=True):
            if u is not None:
                yield value, u


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
