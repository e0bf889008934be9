"""What pictures show, in words, for those who do not see them; captions say what they mean."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .digits import minus, significant

_LISTED = 8


def of_photo(what: str, values: Tensor, marked: str = "") -> str:
    """Of a picture (C, H, W) in 0..1; `marked` says what is drawn over it.

    of_photo("The input", torch.rand(3, 48, 48), "a circle")
    """
    bright = values.clamp(0, 1).double().mean().item()
    grey = "Grey picture" if len(values) == 1 else "Colour picture"
    over = f", with {marked}" if marked else ""
    size = f"{values.shape[2]} by {values.shape[1]} pixels"
    return f"{grey}: {what}, {size}, {bright:.0%} bright{over}."


def of_map(what: str, values: Tensor, marked: str = "") -> str:
    """Of signed numbers (H, W) in blue and red: where they are largest and least.

    of_map("row of F", torch.randn(48, 48))
    """
    ends = []
    for name, place in (("largest", values.argmax()), ("least", values.argmin())):
        i, j = divmod(int(place), values.shape[1])
        number = minus(significant(values[i, j].item(), 2))
        ends.append(f"{name} {number} at row {i}, column {j}")
    over = f"; {marked}" if marked else ""
    return f"Map in blue and red: {what}, {', '.join(ends)}{over}."


def of_bars(what: str, labels: Sequence[str], values: Sequence[float]) -> str:
    """Of a chart: each bar and its number.

    of_bars("best scores", ["tabby"], [9.2])
    """
    each = [
        f"{label} {minus(significant(value, 3))}"
        for label, value in zip(labels, values, strict=True)
    ]
    more = f" and {len(each) - _LISTED} more" if len(each) > _LISTED else ""
    return f"Bar chart: {what}, {', '.join(each[:_LISTED])}{more}."
