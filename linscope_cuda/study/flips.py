"""How far an explanation holds: the decisions that a network takes otherwise for another input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..capture.tape import Entry
from ..frozen.interpreter import LinearInterpreter

_PIECES = 0b01010101  # two bits for each decision of a clamp


@dataclass(frozen=True, eq=False)
class Flips:
    """The network at another input x: its own answer `output` (1, *output_shape), and how many of
    the `decisions` that were frozen for x0 it takes otherwise, `flipped`.

    Counted are decisions that are one of several: the side of a ReLU, the winner of a pool, the
    piece of a clamp. Those that are numbers, a mean or a gate, change with every input.
    """

    output: Tensor
    flipped: int
    decisions: int


@torch.no_grad()
def flips(op: LinearInterpreter, x: Tensor) -> Flips:
    """What the network answers to x (1, *input_shape) with decisions of its own, beside those that
    op holds. One pass of the model, recorded. ValueError where no decisions are kept.

    flips(op, op.x0 + 0.1 * v).flipped
    """
    if op.storage == "none":
        raise ValueError("flips wants the decisions for x0, which storage='none' does not keep")
    other = LinearInterpreter(op.model, x, op.policy, check=False, fold=False)
    counts = [_compared(a, b) for a, b in zip(op.tape, other.tape, strict=True)]
    return Flips(other.output, sum(c[0] for c in counts), sum(c[1] for c in counts))


def _compared(frozen: Entry, taken: Entry) -> tuple[int, int]:
    """How many decisions of a call differ, and how many there are."""
    differing = total = 0
    for name, a in frozen.decision.items():
        b = taken.decision[name]
        if not isinstance(a, Tensor) or a.is_floating_point():
            continue
        if name == "open" or name.startswith("bits"):  # eight in a byte
            differing += _ones(a ^ b)
            total += math.prod(frozen.decision.get(f"shape{name[4:]}", frozen.sample_shape))
        elif name == "pieces":
            either = a ^ b
            differing += _ones((either | (either >> 1)) & _PIECES)
            total += math.prod(frozen.sample_shape)
        else:
            differing += int((a != b).sum())
            total += a.numel()
    return differing, total


def _ones(packed: Tensor) -> int:
    """The bits that are set in bytes."""
    return sum(int((packed >> i & 1).sum()) for i in range(8))


def radius(holds: Callable[[float], bool], most: float, digits: int = 8) -> float:
    """The largest t up to `most`, to one part in 2**digits of itself, up to which `holds(t)` was
    seen to be true: it is doubled from most / 2**20 until it no longer holds, then bisected.

    radius(lambda t: flips(op, op.x0 + t * v).flipped == 0, most=1.0)
    """
    if holds(most):
        return most
    low, high = 0.0, most / 2**20
    while high < most and holds(high):
        low, high = high, 2 * high
    for _ in range(digits if low else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
