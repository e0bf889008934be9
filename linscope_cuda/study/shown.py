"""A network's values as a picture: in the colours of its input, or on a scale of their own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..zoo.preprocess import Preprocess, rgb

# Of the values, so many may be cut off at black and white before that hides the picture.
_CUT_OFF = 0.01
# Less than this part of what lies between black and white is not seen.
_FLAT = 0.05
# On a scale of their own, so many at each end are let go, which would leave the others pale.
_ENDS = 0.005


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture (3, H, W) or (1, H, W) in 0..1; `ends` are the values at black and white where the
    scale is its own, `mean` tells that it is the mean over channels.
    """

    picture: Tensor
    ends: tuple[float, float] | None = None
    mean: int = 1

    @property
    def words(self) -> str:
        """What must be said of it: "" for the colours of the network's input."""
        mean = f"the mean over {self.mean} channels, " if self.mean > 1 else ""
        if not self.ends:
            return ""
        low, high = (f"{end:.2g}".replace("-", "\u2212") for end in self.ends)
        return f"{mean}from {low} (black) to {high} (white)"


def shown(values: Tensor, preprocess: Preprocess, channels: int) -> Shown:
    """Values (C, H, W) of a network whose input has `channels`: in the input's colours where they
    have as many and can be seen so, else from about their least to their most.

    shown(op.filter(op.x0)[0], preprocess, 3).words
    """
    alike = len(values) == channels
    if alike:
        colours = rgb(values, preprocess)
        outside = ((colours < 0) | (colours > 1)).double().mean().item()
        if outside <= _CUT_OFF and (colours.max() - colours.min()).item() >= _FLAT:
            return Shown(colours)
    values = values.double()
    one = values if alike else values.mean(0, keepdim=True)
    if alike and preprocess.order == "BGR":
        one = one.flip(0)
    sizes = one.flatten().sort().values
    cut = int(_ENDS * len(sizes))
    low, high = sizes[cut].item(), sizes[-1 - cut].item()
    picture = (one - low) / ((high - low) or 1.0)
    return Shown(picture, (low, high), 1 if alike else len(values))
