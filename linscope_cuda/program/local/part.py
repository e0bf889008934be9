"""What a step does within boxes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ..step import Step, Value
from .box import Box, sizes


class Part(NamedTuple):
    """A step within boxes: `box`, outside of which its result is zero, and `run(reads, cuts)`, that
    box of the result by those of what it reads (None: zero) and by parts of constants, `cuts`.

    Parts of one step with equal keys, at other places, differ in their cuts alone. `work` is the
    multiplications, or what takes as long.
    """

    box: Box
    run: Callable[[Sequence[Tensor | None], Sequence[Tensor]], Tensor]
    key: Hashable = None
    cuts: tuple[Callable[[], Tensor], ...] = ()
    work: float = 0.0


# The part of a step, given the boxes of what it reads; None where its result is zero everywhere.
Bound = Callable[[Sequence[Box | None]], Part | None]


class Context(Protocol):
    """What rules ask of a line."""

    def __call__(self, v: Any) -> bool:
        """Whether a value depends on the line's input."""
        ...

    def constant(self, v: Any) -> Tensor:
        """A constant tensor, or a value that does not depend on the input."""
        ...


# What binds a step; None for one that the rule does not know.
Rule = Callable[[Step, "Context"], Bound | None]


@dataclass(frozen=True)
class Reads:
    """The values that a step reads and that depend on the input, each once, in their order."""

    values: tuple[Value, ...]

    @staticmethod
    def of(step: Step, live: Callable[[Any], bool]) -> Reads:
        return Reads(tuple({v.number: v for v in step.operands if live(v)}.values()))

    def place(self, v: Any) -> int | None:
        """Which of them it is; None for another."""
        numbers = [w.number for w in self.values]
        return numbers.index(v.number) if isinstance(v, Value) and v.number in numbers else None


def only(given: Sequence[Tensor | None]) -> Tensor:
    """The value that a function of one reads."""
    (x,) = given
    assert x is not None
    return x


def area(box: Box) -> float:
    """What a function of each entry of a box takes."""
    return 4.0 * prod(sizes(box))
