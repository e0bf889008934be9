"""What each step of a frozen network adds whatever its input is, and the gradients that meet it.

The frozen network is a line of steps y = A x + c. The gradient of an output with respect to a
step's result is q, and <q, c> is what the step adds to that output. The transposed program passes
through every q on its way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..capture.model import precision
from ..capture.transparent import normal_mode
from ..program.line import Values
from ..program.linear_part import linear_part, offset
from ..program.live import Live
from ..program.transposed import NoTranspose, Transposition
from ..rules import UnscopedOperation
from .network import FrozenNetwork


@dataclass(frozen=True)
class Offset:
    """c of a step, for one sample, to whose result `value` broadcasts."""

    number: int
    name: str
    value: Tensor


def contribution(q: Tensor, c: Tensor) -> Tensor:
    """q * c entry by entry; of complex numbers, their real and imaginary parts each."""
    return torch.complex(q.real * c.real, q.imag * c.imag) if q.is_complex() else q * c


class Offsets:
    """The offsets of a network's steps, in their order, and the reverse runs that meet them."""

    def __init__(self, op: FrozenNetwork):
        op.source.require_same()
        affine = op.program.line
        try:
            reverse = Transposition(linear_part(affine), apart=True)
        except NoTranspose as error:
            raise UnscopedOperation(str(error)) from error
        live = Live(affine)
        self.op = op
        self.line = reverse.line
        self.list: list[Offset] = []
        self.at: dict[int, list[Offset]] = {}  # by the values of the transposed program
        for step in affine.steps:
            c = offset(step, live) if live(step.output) else None
            q = reverse.meets.get(step.output.number)
            if c is not None and q is not None:
                self.list.append(Offset(len(self.list), step.label, c))
                self.at.setdefault(q.number, []).append(self.list[-1])

    def meet(self, u: Tensor, meet: Callable[[Offset, Tensor], object]) -> Tensor:
        """F^T u for one sample, (1, *output_shape), with a call of `meet` for each offset and the
        gradient q that reaches its step.
        """

        def watch(number: int, values: Values) -> None:
            for met in self.at.get(number, ()):
                meet(met, values[number])

        return self.line.together([u], watch)[0]

    def gather(self, u: Tensor, entry: str | None = None) -> tuple[Tensor, Tensor]:
        """F^T u for one sample and, beside it, the sum over the offsets of F_k^T (q_k c_k), or over
        those of one entry of a ledger.
        """

        def watch(number: int, values: Values, sums: Values) -> None:
            for met in self.at.get(number, ()):
                if entry in (None, met.name):
                    sums[number] = sums[number] + contribution(values[number], met.value)

        row, gathered = self.line.together([u, torch.zeros_like(u)], watch)
        return row, gathered

    @torch.no_grad()
    def of_each(self, function: Callable[[Tensor], Any], u: Tensor) -> Any:
        """function(one sample) for every sample of u, at once: each result with them first."""
        self.op._passes += len(u)
        with normal_mode(), precision(self.op.device):
            return torch.vmap(function)(u.unsqueeze(1))


def require_interpreter(name: str, op: Any) -> None:
    """TypeError, in the words of function `name`, for what is no LinearInterpreter."""
    if not isinstance(op, FrozenNetwork):
        raise TypeError(f"{name} wants a LinearInterpreter, was given {type(op).__name__}")


def one_hot(flat: list[int], op: FrozenNetwork) -> Tensor:
    """Unit vectors of the output at flat positions: (len(flat), *output_shape)."""
    u = op._zeros(len(flat), math.prod(op.output_shape))
    u[range(len(flat)), flat] = 1
    return u.reshape(len(flat), *op.output_shape)


def batches(flat: list[int], size: int) -> Iterator[tuple[int, list[int]]]:
    """(start, flat[start : start + size]), piece by piece."""
    for start in range(0, len(flat), size):
        yield start, flat[start : start + size]
