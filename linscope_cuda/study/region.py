"""How far the frozen network is the network itself along x0 + t d: to the first flip."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..capture.moved import Along, Flip, Numbers
from ..display import Tabular
from ..frozen.interpreter import LinearInterpreter
from .euclidean import norm
from .flips import Flips, bracket, flips

Progress = Callable[[float], object]

_REACH = 16.0  # in units of |x0|: how far is looked where a flip is looked for
_DIGITS = 8
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Unit:
    """A unit whose decision flips at x0 + t d: the side of a ReLU, the piece of a clamp, the winner
    of a pool, an order; `place` is (channel, row, column), or what dimensions the decision has, and
    `entry` the number of its call on the tape.
    """

    t: float
    module: str
    function: str
    place: tuple[int, ...]
    kind: str
    entry: int

    def __str__(self) -> str:
        where = f" at {', '.join(map(str, self.place))}" if self.place else ""
        return f"t = {self.t:.6g}: the {self.kind} of {self.function} in {self.module}{where}"


@dataclass(frozen=True, repr=False)
class Region(Tabular):
    """For low < t < high the network at x0 + t d takes every decision as for x0.

    `ahead` and `behind` are the units that flip next, for t > 0 and for t < 0, the nearest first:
    those after the first as the frozen network has it. `decisions` is how many there are of one of
    several. Where it is `exact`, the network is F x + r itself in between, and the bounds are right
    but for rounding. Where not, `reason` is the call whose decision is a number, a mean or a gate,
    which moves from the start, or has no rule for how far it stays: then the bounds were looked for
    by running the network, to a part in 256, and `ls.drift` tells what F x + r is worth.

    >>> found = ls.region(op, x1 - op.x0)
    >>> found.low, found.high, found.exact
    """

    low: float
    high: float
    ahead: list[Unit]
    behind: list[Unit]
    decisions: int
    reason: str | None

    @property
    def exact(self) -> bool:
        """Whether the bounds are computed, not looked for: `reason` is None."""
        return self.reason is None

    @property
    def radius(self) -> float:
        """How far one can go both ways."""
        return min(self.high, -self.low)

    def __str__(self) -> str:
        how = "exact" if self.exact else f"measured, for {self.reason} is not one of several"
        lines = [f"{self.low:.6g} < t < {self.high:.6g} ({how}), {self.decisions:,} decisions"]
        return "\n".join([*lines, *(f"  {unit}" for unit in (*self.behind[::-1], *self.ahead))])

    def _columns(self) -> dict[str, list[Any]]:
        units = [*self.behind[::-1], *self.ahead]
        names = ("t", "kind", "function", "module", "place")
        return {name: [getattr(unit, name) for unit in units] for name in names}


@torch.no_grad()
def region(
    op: LinearInterpreter,
    direction: Tensor,
    k: int = 5,
    *,
    most: float | None = None,
    progress: Progress = lambda share: None,
) -> Region:
    """How far along x0 + t `direction` the network takes the decisions that op holds, with the `k`
    units that flip next on either side.

    `direction` is (1, *input_shape), or without the 1, of any size. One pass, which carries along
    how each decision's argument moves. Where a decision on the way is a number (InstanceNorm,
    sigmoid, softmax), some 40 passes look for a flip up to |t| = `most`; None: where |t d| is 16
    times |x0|. `progress` is told which share of these is done, about.
    TypeError for another operator than a LinearInterpreter; ValueError where it keeps no decisions,
    and for a direction of the wrong shape, of zeros, not finite, or too large.

    >>> found = ls.region(op, ls.svd(op, k=1).V)
    >>> found.high, found.ahead[0].module, found.ahead[0].place
    """
    d = checked_direction("region", op, direction)
    if k < 1:
        raise ValueError(f"region wants 1 unit or more, was given k = {k}")
    if most is not None and not 0 < most < math.inf:
        raise ValueError(f"region wants a positive number as most, was given {most}")
    try:
        return exactly(op, d, k)
    except Inexact as reason:
        most = _REACH * (norm(op.x0) or 1.0) / norm(d) if most is None else most
        return _measured(op, d, k, most, str(reason), progress)


class Inexact(Exception):
    """Says which call keeps a region from being exact."""


def exactly(op: LinearInterpreter, d: Tensor, k: int) -> Region:
    """The region along a direction (1, *input_shape), in one pass; `Inexact` where that will not
    do.
    """
    run = Along(op.model, op.tape, op.policy, d, k)
    try:
        op.replay(run, op.x0)
    except (Numbers, NotImplementedError) as reason:  # or torch has no forward derivative
        raise Inexact(str(reason).splitlines()[0]) from reason
    high, low = (side[0].t if side else math.inf for side in (run.ahead, run.behind))
    ahead, behind = (_units(op, _earliest_first(side)) for side in (run.ahead, run.behind))
    behind = [replace(unit, t=-unit.t) for unit in behind]
    return Region(-low, high, ahead, behind, run.decisions, None)


def _earliest_first(found: list[Flip]) -> list[Flip]:
    """Of flips that are the first but for rounding, that of the earliest call leads: one that acts
    on its result may be met there for that reason alone.
    """
    if not found:
        return []
    close = [flip for flip in found if flip.t <= found[0].t * (1 + _ROUNDING)]
    lead = min(close, key=lambda flip: flip.entry)
    return [lead, *(flip for flip in found if flip is not lead)]


def checked_direction(name: str, op: Any, direction: Tensor) -> Tensor:
    """The direction as (1, *input_shape) in op's dtype; the errors of `region` for what is none."""
    if not isinstance(op, LinearInterpreter):
        raise TypeError(
            f"{name} wants a LinearInterpreter, which can run the network itself, was given "
            f"{type(op).__name__}"
        )
    if op.storage == "none":
        raise ValueError(f"{name} wants the decisions for x0, which storage='none' does not keep")
    shape = tuple(op.input_shape)
    if tuple(direction.shape) not in (shape, (1, *shape)):
        raise ValueError(
            f"{name} wants a direction of shape {(1, *shape)}, was given {tuple(direction.shape)}"
        )
    d = direction.detach().to(op.x0).reshape(op.x0.shape)
    if not d.isfinite().all():
        raise ValueError(f"{name} wants a finite direction, was given one with NaN or infinity")
    if not d.any():
        raise ValueError(f"{name} wants a direction to go, was given zeros")
    return d


def _units(op: LinearInterpreter, found: Iterable[Flip]) -> list[Unit]:
    entries = op.tape.entries
    return [
        Unit(
            t=flip.t,
            module=entries[flip.entry].module,
            function=entries[flip.entry].function.rpartition(".")[2],
            place=flip.place,
            kind=flip.kind,
            entry=flip.entry,
        )
        for flip in found
    ]


def _measured(
    op: LinearInterpreter, d: Tensor, k: int, most: float, reason: str, progress: Progress
) -> Region:
    count = 0

    def at(t: float, first: int = 0) -> Flips:
        nonlocal count
        progress(count / (count + 20))
        count += 1
        return flips(op, op.x0 + t * d, first)

    def side(sign: int) -> tuple[float, list[Unit]]:
        low, high = bracket(lambda t: not at(sign * t).flipped, most, _DIGITS)
        if high == math.inf:
            return sign * low, []
        units = _units(op, at(sign * high, k).first[:k])
        return sign * low, [replace(unit, t=sign * high) for unit in units]

    decisions = at(0.0).decisions
    if not decisions:
        return Region(-math.inf, math.inf, [], [], 0, reason)
    (high, ahead), (low, behind) = side(1), side(-1)
    return Region(low, high, ahead, behind, decisions, reason)
