"""What the frozen network is worth away from x0: its error, beside the decisions that flip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..display import Drawn, Tabular
from ..frozen.interpreter import LinearInterpreter
from .euclidean import norm
from .flips import flips
from .region import checked_direction


@dataclass(frozen=True, eq=False, repr=False)
class Drift(Tabular, Drawn):
    """The network f and its frozen one at x0 + t d, for T values of t.

    `error` (T,) is |f(x0 + t d) - F (x0 + t d) - r|, `change` (T,) the size |t F d| of the change
    that the frozen network foretells. `flipped` (T, E) are the decisions that f takes otherwise
    than for x0, in each of the E entries of the tape, which `names` names, with `decisions` (E,)
    each: 0 for one whose decision is a number.

    >>> found = ls.drift(op, x1 - op.x0, [0.1, 1])
    >>> dict(zip(found.names, found.flipped[-1].tolist()))    # which layers decide otherwise at x1
    """

    ts: Tensor
    error: Tensor
    change: Tensor
    flipped: Tensor
    decisions: Tensor
    names: list[str]

    @property
    def relative(self) -> Tensor:
        """error / change (T,); 0 where nothing is foretold and nothing is wrong."""
        return torch.where(self.error == 0, 0.0, self.error / self.change)

    @property
    def share(self) -> Tensor:
        """The share of all decisions that flipped (T,); nan where all decisions are numbers."""
        return self.flipped.sum(1) / self.decisions.sum()

    def __str__(self) -> str:
        lines = [f"{'t':>10} {'error':>10} {'of change':>10} {'flipped':>10}"]
        for t, error, relative, flipped in zip(
            self.ts.tolist(),
            self.error.tolist(),
            self.relative.tolist(),
            self.flipped.sum(1).tolist(),
            strict=True,
        ):
            lines.append(f"{t:10.4g} {error:10.3g} {100 * relative:8.3g} % {flipped:10,}")
        return "\n".join([*lines, f"of {int(self.decisions.sum()):,} decisions"])

    def _columns(self) -> dict[str, list[Any]]:
        return {
            "t": self.ts.tolist(),
            "error": self.error.tolist(),
            "change": self.change.tolist(),
            "relative": self.relative.tolist(),
            "flipped": self.flipped.sum(1).tolist(),
            "share": self.share.tolist(),
        }


@torch.no_grad()
def drift(
    op: LinearInterpreter,
    direction: Tensor,
    ts: Sequence[float] | Tensor = (1.0,),
    *,
    progress: Callable[[float], object] = lambda share: None,
) -> Drift:
    """How far the network departs from F x + r at x0 + t `direction` for each t, and which share of
    its decisions flips in which layer.

    `direction` and errors are those of `ls.region`; towards another input x1 it is x1 - x0, with
    t = 1 there. A pass for each t, and one more; `progress` is told the share that is done.
    TapeMismatch for a network that takes another path there.

    >>> found = ls.drift(op, x1 - op.x0, [0.01, 0.1, 1])
    >>> found.relative, found.share
    """
    d = checked_direction("drift", op, direction)
    times = [float(t) for t in ts]
    if not all(map(torch.isfinite, map(torch.tensor, times))):
        raise ValueError(f"drift wants finite numbers as ts, was given {times}")
    foretold = op.filter(d)
    errors, counts, decisions = [], [], [0] * len(op.tape)
    for i, t in enumerate(times):
        found = flips(op, op.x0 + t * d)
        errors.append(norm(found.output.double() - op.output.double() - t * foretold.double()))
        counts.append(found.flipped_by_entry)
        decisions = found.decisions_by_entry
        progress((i + 1) / len(times))
    return Drift(
        ts=torch.tensor(times, dtype=torch.float64),
        error=torch.tensor(errors, dtype=torch.float64),
        change=torch.tensor(times, dtype=torch.float64).abs() * norm(foretold),
        flipped=torch.tensor(counts, dtype=torch.long).reshape(len(times), len(op.tape)),
        decisions=torch.tensor(decisions, dtype=torch.long),
        names=[f"{e.module} ({e.function.rpartition('.')[2]})" for e in op.tape],
    )
