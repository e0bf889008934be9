"""The decisions that a network takes otherwise for another input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..capture.moved import Flip, Retaken
from ..frozen.interpreter import LinearInterpreter


@dataclass(frozen=True, eq=False)
class Flips:
    """The network at another input x: its own answer `output` (1, *output_shape), and, for each
    entry of the tape, how many decisions it has and how many of them are others than for x0.

    Counted are decisions that are one of several: the side of a ReLU, the winner of a pool, the
    piece of a clamp. Those that are numbers, a mean or a gate, change with every input. `first` are
    those asked for.
    """

    output: Tensor
    flipped_by_entry: list[int]
    decisions_by_entry: list[int]
    first: list[Flip]

    @property
    def flipped(self) -> int:
        return sum(self.flipped_by_entry)

    @property
    def decisions(self) -> int:
        return sum(self.decisions_by_entry)


def flips(op: LinearInterpreter, x: Tensor, first: int = 0) -> Flips:
    """What the network answers to x (1, *input_shape) with decisions of its own, beside those that
    op holds. One pass of the model. `first`: of each entry, so many flips are named.

    ValueError where no decisions are kept; TapeMismatch for a network that takes another path.

    flips(op, op.x0 + 0.1 * v).flipped
    """
    if op.storage == "none":
        raise ValueError("flips wants the decisions for x0, which storage='none' does not keep")
    run = Retaken(op.model, op.tape, op.policy, first)
    y = op.replay(run, x.to(op.x0))
    return Flips(y, run.flipped, run.decisions, run.flips)


_STEP = 16.0  # of the search from below


def bracket(holds: Callable[[float], bool], most: float, digits: int = 8) -> tuple[float, float]:
    """The largest t up to `most` up to which `holds(t)` was seen to be true, and one further by a
    part in 2**digits at which it is not: inf where it holds at `most`.

    t is tried from most / 16**5 on, 16 times larger each time, then bisected: what holds again in
    between is not seen. Where it does not hold at most / 16**15, the first is 0.

    bracket(lambda t: flips(op, op.x0 + t * v).flipped == 0, most=1.0)
    """
    if holds(most):
        return most, math.inf
    low, high = 0.0, most
    for start in (most / _STEP**n for n in (5, 10, 15)):
        if holds(start):
            low = start
            break
        high = start
    if not low:
        return low, high
    while _STEP * low < high and holds(_STEP * low):
        low *= _STEP
    high = min(_STEP * low, high)
    while high > low * (1 + 2**-digits):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, high


def radius(holds: Callable[[float], bool], most: float, digits: int = 8) -> float:
    """The first of `bracket`."""
    return bracket(holds, most, digits)[0]
