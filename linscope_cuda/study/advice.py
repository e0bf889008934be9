"""What to try where F x0 and r say little of y: another policy, measured."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .errors import BadInput
from .photos import interpreter

# Those that split one and the same y into other parts. "taylor" asks for something else, the
# derivative: of a network that begins with a norm, F x0 is then next to nothing.
_SPLITTING = ("paper", "centered")
_LESS = 0.9  # than what there is, to be worth a change


@dataclass(frozen=True)
class Advice:
    """Another policy, and |r| / |y| under it."""

    policy: str
    ratio: float


def advice(model: nn.Module, x0: Tensor, name: str, policy: str, ratio: float) -> Advice | None:
    """The policy under which |r| / |y| is least, of a network that has `ratio` under `policy`; None
    where none makes it noticeably less. Freezes the network anew for each.

    advice(model, x0, "mine", "paper", 3.98)    # Advice(policy='centered', ratio=1.28)
    """
    found = []
    for other in _SPLITTING:
        if other == policy:
            continue
        try:
            op = interpreter(model, x0, name, other, check=False)
        except BadInput:
            continue
        found.append(Advice(other, (op.residual.norm() / op.output.norm()).item()))
    best = min(found, key=lambda each: each.ratio, default=None)
    return best if best and best.ratio < _LESS * ratio else None
