"""How much memory a run of a program takes, from the lives of its values."""

from __future__ import annotations

import torch
from torch import Tensor

from .line import Line, Value

aten = torch.ops.aten

_CONVOLUTIONS = {aten.convolution.default, aten.convolution_backward.default}


def shares(step) -> bool:
    """Whether a step's value lies in the memory of its first argument."""
    returns = step.function._schema.returns
    return step.function is aten.reshape.default or any(r.alias_info is not None for r in returns)


def peak_bytes(program: Line) -> int:
    """The most bytes that one run holds at a time of what its steps make; the input and constants
    are not counted, what convolutions lay out anew is.
    """
    owner: dict[int, int] = {}  # by value, the value whose memory it lies in
    size: dict[int, int] = {program.input.number: 0}
    last: dict[int, int] = {}

    def memory(number: int) -> int:
        return owner.get(number, number)

    for i, step in enumerate(program.steps):
        if shares(step) and isinstance(step.args[0], Value):
            for v in step.outputs:
                if v is not None:
                    owner[v.number] = memory(step.args[0].number)
        else:
            size |= {v.number: v.nbytes for v in step.outputs if v is not None}
        for v in (*step.operands(), *step.outputs):
            if isinstance(v, Value):
                last[memory(v.number)] = i
    last[memory(program.output.number)] = len(program.steps)
    alive = peak = 0
    for i, step in enumerate(program.steps):
        made = [v for v in step.outputs if v is not None and memory(v.number) == v.number]
        alive += sum(v.nbytes for v in made)
        scratch = 0
        if step.function in _CONVOLUTIONS:
            given = [v for v in step.operands() if isinstance(v, Value | Tensor)]
            scratch = sum(v.nbytes for v in (*made, *given))
        peak = max(peak, alive + scratch)
        gone = {memory(v.number) for v in (*step.operands(), *made) if isinstance(v, Value)}
        alive -= sum(size.get(n, 0) for n in gone if last[n] == i)
    return peak
