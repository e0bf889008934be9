"""Runs beside a tape: of another input, whose decisions are held against the tape's, and along a
direction, on which every decision tells how far it stays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch.autograd import forward_ad

from ..rules import Choice, Fused
from ..rules.choices import Moving
from ..rules.entry import Decision
from ..rules.policy import Policy
from .forward import dual_level
from .replay import Replay
from .tape import Tape


@dataclass(frozen=True)
class Flip:
    """A decision that changes: the tape's entry it belongs to, its place there, what kind it is.

    `place` leaves out the first dimension where that is 1, as it is for one sample. `t` is how far
    along a direction that is, 0 for a flip that was seen at another input.
    """

    entry: int
    place: tuple[int, ...]
    kind: str
    t: float = 0.0


class Retaken(Replay):
    """Runs the model on another input, with decisions of its own. For each entry of the tape,
    `flipped` has how many of its decisions are others, and `decisions` how many there are; 0 where
    a decision is a number. `flips` are the first `most` of them in each entry.
    """

    def __init__(self, model: nn.Module, tape: Tape, policy: Policy, most: int = 0):
        super().__init__(model, tape, policy)
        self.most = most
        self.flipped, self.decisions = [0] * len(tape), [0] * len(tape)
        self.flips: list[Flip] = []

    def __call__(self, decide, *args):
        with DisableTorchFunction():
            if not any(map(self.probes, args)):
                return decide(*args)
            number, taken = self.position, decide(*args)
            self._hold(number, super().__call__(decide, *args), taken, decide)
            return taken

    def fused(self, rule: Fused, *args: Any, **kwargs: Any) -> Any:
        with DisableTorchFunction():
            y, taken = rule.scope(len(args[0]) if args[0].dim() else 1, *args, **kwargs)
            number, given = self.position, self._next(args[0])
            if found := rule.choice(given, *args, **kwargs):
                other = rule.choice(taken, *args, **kwargs)
                assert other is not None
                self._hold(number, found[1], other[1], found[0])
            return y

    def _hold(self, number: int, given: Any, taken: Any, decide: Any) -> None:
        several = isinstance(given, tuple)
        kind = decide.kind if isinstance(decide, Choice) else "value"
        for mine, theirs in zip(_parts(taken), _parts(given), strict=True):
            if _is_number(mine) and (several or not isinstance(decide, Choice)):
                continue
            others = mine != theirs
            self.decisions[number] += others.numel()
            self.flipped[number] += int(others.sum())
            if self.most and self.flipped[number]:
                places = others.nonzero()[: self.most].tolist()
                self.flips += [Flip(number, _place(at, others), kind) for at in places]


class Numbers(Exception):
    """A decision on the way is a number, or one of which nobody knows how far it stays."""


class Along(Replay):
    """Runs x0 by the tape with a direction as the derivative that goes with it, so that each
    decision sees z0 and dz of what it was taken on: along x0 + t d that is z0 + t dz, until a first
    decision changes.

    `ahead` and `behind` are the `most` nearest flips for t > 0 and for t < 0, by |t|, `decisions`
    how many of them there are in all. `Numbers` where a decision that moves is a number;
    NotImplementedError where torch cannot differentiate forward; ValueError where numbers overflow.
    """

    def __init__(
        self, model: nn.Module, tape: Tape, policy: Policy, direction: Tensor, most: int
    ) -> None:
        super().__init__(model, tape, policy)
        self.direction, self.most = direction, most
        self.ahead: list[Flip] = []
        self.behind: list[Flip] = []
        self.decisions = 0

    def run(self, forward, x):
        with dual_level():
            y = super().run(forward, forward_ad.make_dual(x, self.direction))
            return forward_ad.unpack_dual(y).primal

    def __call__(self, decide, *args):
        with DisableTorchFunction():
            if not any(map(self.probes, args)):
                return decide(*args)
            entry, chosen = self.position, super().__call__(decide, *args)
            self._look(entry, decide if isinstance(decide, Choice) else None, chosen, args)
            return chosen

    def fused(self, rule: Fused, *args: Any, **kwargs: Any) -> Any:
        with DisableTorchFunction():
            # Looked at first: what is a number may have no derivative to go along with.
            decision: Decision = self.tape.entries[self.position].on(args[0].device)
            choice, chosen = rule.choice(decision, *args, **kwargs) or (None, None)
            if decision:
                self._look(self.position, choice, chosen, args[:1])
            return super().fused(rule, *args, **kwargs)

    def _look(self, number: int, choice: Choice | None, chosen: Any, args: tuple) -> None:
        entry = self.tape.entries[number]
        moving = [_moving(arg) for arg in args]
        if choice is not None:
            self.decisions += next(_parts(chosen)).numel()
        if not any(m.slope.any() for m in moving):
            return
        if any((m.value.isfinite() & ~m.slope.isfinite()).any() for m in moving):
            raise ValueError(f"the direction is too large: numbers overflow in {entry}")
        for sign, found in ((1, self.ahead), (-1, self.behind)):
            there = (Moving(m.value, sign * m.slope) for m in moving)
            t = None if choice is None else choice.until(chosen, *there)
            if choice is None or t is None:
                raise Numbers(str(entry))
            found += self._nearest(number, choice.kind, t)
            found.sort(key=lambda flip: flip.t)  # of equal ones the earlier call's stays first
            del found[self.most :]

    def _nearest(self, number: int, kind: str, t: Tensor) -> list[Flip]:
        flat = t.flatten()
        least = flat.topk(min(self.most, len(flat)), largest=False)
        places = torch.stack(torch.unravel_index(least.indices, t.shape or (1,)), 1)
        return [
            Flip(number, _place(at, t), kind, when)
            for when, at in zip(least.values.tolist(), places.tolist(), strict=True)
            if when < math.inf
        ]


def _moving(arg: Any) -> Moving:
    """An argument of a decision in float32 or better."""
    given = arg if isinstance(arg, Tensor) else torch.tensor(arg, dtype=torch.float64)
    value, slope = forward_ad.unpack_dual(given)
    wide = torch.promote_types(value.dtype, torch.float32)
    value = value.to(wide)
    return Moving(value, torch.zeros_like(value) if slope is None else slope.to(wide))


def _parts(decided: Any) -> Iterator[Tensor]:
    return iter(decided if isinstance(decided, tuple) else (decided,))


def _is_number(decided: Tensor) -> bool:
    return decided.is_floating_point() or decided.is_complex()


def _place(at: list[int], of: Tensor) -> tuple[int, ...]:
    if not of.dim():
        return ()
    return tuple(at[1:] if of.shape[0] == 1 else at)
