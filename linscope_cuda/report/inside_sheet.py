"""What is inside of a network and adds to a score, as a picture: bars, and a map over the photo."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ..study.close_up import robust_scale
from .charts import _scale_bar, _short
from .pictures import (
    _PALEST,
    _STYLE,
    BLUE,
    DPI,
    GREY,
    PALE,
    RED,
    _covering,
    _number_bars,
    _place,
    _png,
    _room,
    _title,
)

_WIDTH, _PHOTO, _LEFT, _TOP, _ROW = 7.2, 2.5, 0.14, 0.62, 0.2  # inches
_NAMES = 1.75

Parts = Sequence[tuple[str, float]]


def inside_sheet(
    picture: Tensor, places: Tensor | None, bars: Parts, past: Parts, title: str, note: str
) -> bytes:
    """A bar for each part of a score, red above zero and blue below, those in `past` pale; beside
    the picture (3, H, W) in 0..1, under what each place (h, w) adds, if that is given.

    inside_sheet(torch.rand(3, 8, 8), torch.randn(4, 4), [("channel 3", 0.5)], [], "a net", "sum")
    """
    rows = len(bars) + len(past)
    tall = _PHOTO * picture.shape[1] / picture.shape[2]
    height = _TOP + max(tall + (0.15 if places is None else 0.62), 0.5 + _ROW * rows)
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), dpi=DPI)
        axes = _place(figure, _LEFT, _TOP, _PHOTO, tall)
        axes.set_axis_off()
        if places is None:
            axes.imshow(picture.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy())
        else:
            bar = _place(figure, _LEFT, _TOP + tall + 0.1, _PHOTO, 0.08)
            _map(figure, axes, bar, picture, places)
            words = "what each place adds (it sees more than its square)"
            y = 1 - (_TOP + tall + 0.38) / height
            figure.text(_LEFT / _WIDTH, y, words, va="top", fontsize=7.5, color=GREY)
        left = _LEFT + _PHOTO + _NAMES
        _bars(_place(figure, left, _TOP, _WIDTH - left - 0.15, _ROW * rows), bars, past)
        _title(figure, title, round(_LEFT * DPI))
        y = 1 - 0.28 / height
        figure.text(_LEFT / _WIDTH, y, note, va="top", fontsize=8, color=GREY)
        return _png(figure)


def _map(figure: Figure, axes: Axes, bar: Axes, picture: Tensor, places: Tensor) -> None:
    grey = _PALEST + (1 - _PALEST) * picture.clamp(0, 1).double().mean(0)
    scale = robust_scale(places) or 1.0
    colours = ScalarMappable(Normalize(-scale, scale), _covering())
    extent = (0, picture.shape[2], picture.shape[1], 0)
    axes.imshow(grey.numpy(), cmap="gray", vmin=0, vmax=1, extent=extent)
    over = colours.to_rgba(places.numpy())
    axes.imshow(over, extent=extent, interpolation="nearest")
    _scale_bar(figure, bar, colours, places, scale)


def _bars(axes: Axes, bars: Parts, past: Parts) -> None:
    names, values = zip(*bars, *past, strict=True)
    colours = [RED if v > 0 else BLUE for _, v in bars] + [PALE] * len(past)
    axes.barh(range(len(values)), values, 0.64, color=colours)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_yticks(range(len(names)), [_short(name, 26) for name in names], fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    _room(axes, values, 0.25)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("added to the score")
    _number_bars(axes, range(len(values)), values, 7)
