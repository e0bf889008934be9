"""What the page says where F x0 and r do not look like y, and which policy to try."""

from __future__ import annotations

from ..study.tour import Tour
from .digits import percent, scientific

_MORE = 1.05  # times |y|, of |r|: what rounding adds to r = y is no reason to explain
_NOTHING = 0.05  # times |y|, of |F x0|

_WHY = {
    "centered": "which keeps the means of instance, group and layer norms in F, where "
    "\u201cpaper\u201d makes constants of them, and so a part of r",
    "paper": "which reads a smooth function as the secant through its value at zero, and a norm by "
    "its mean and deviation",
}


def explained(tour: Tour) -> str:
    """Sentences, or "" where there is nothing to explain.

    explained(found)
    """
    if tour.filtered_ratio < _NOTHING:
        return _no_filter(tour)
    return _cancelling(tour) if tour.residual_ratio > _MORE else ""


def _no_filter(tour: Tour) -> str:
    said = (
        "F x\u2080 is next to nothing here, |F x\u2080| / |y| = "
        f"{scientific(tour.filtered_ratio)}, and y is nearly all r."
    )
    if tour.policy == "taylor":
        said += (
            " Under \u201ctaylor\u201d F is the network\u2019s derivative; a network that begins "
            "with a normalisation does not answer to the contrast of its input, so that its "
            "derivative along x\u2080 vanishes. Rows, columns and singular vectors are that "
            "derivative all the same; for what the input adds to y, try --policy centered."
        )
    return said


def _cancelling(tour: Tour) -> str:
    said = (
        f"|r| is {_times(tour.residual_ratio)} and |F x\u2080| {_times(tour.filtered_ratio)}: the "
        f"two cancel{' for the most part' if tour.residual_ratio > 2 else ' in part'}, and y is "
        "what is left. So neither looks like y, and each is shown on its own scale."
    )
    if tour.advice:
        said += (
            f" Try --policy {tour.advice.policy}, {_WHY[tour.advice.policy]}: |r| / |y| is then "
            f"{percent(tour.advice.ratio)}."
        )
    else:
        said += (
            " No other policy makes it noticeably less: the constants of this network, its biases "
            "first of all, add so much to y."
        )
    return said


def _times(ratio: float) -> str:
    return f"{ratio:.3g} times |y|" if ratio >= 1 else f"{percent(ratio)} of |y|"
