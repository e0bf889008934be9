"""A sheet of pictures in rows and columns, each with a title, its colour bar and a note."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from torch import Tensor

from .pictures import _STYLE, DPI, GREY, _circle, _frame, _number, _png

SIDE = 400  # device pixels of a picture's longer side
_LEFT, _GAP, _TITLE, _TICKS, _BAR, _BAR_TEXT, _NOTE = 96, 28, 50, 44, 18, 78, 30
_HEAD = 76
_DECADES = 6  # of an energy map at most; below is black
_DASHES = ("solid", (0, (4, 3)))

Mark = tuple[float, float]
Window = tuple[int, int, int]


@dataclass(frozen=True)
class Panel:
    """A picture of a sheet.

    `values` is a photo (3, H, W) or (1, H, W) in 0..1, or a map (H, W): "signed", blue below and
    red above a white zero, to `scale` (None: the largest magnitude); "positive" from 0 up to
    `scale`; "energy", logarithmic, six decades at most below its largest value.
    `unit` names the colour bar. `mark` (row, column) is circled; `circles` are (vertical,
    horizontal) radii around it instead, the first one drawn solid, the second dashed.
    `rectangle` frames rows and columns (start, end). `crop` shows one window only, `frames` mark
    some; `step` is the distance of the map's pixels and
    `first` the place of its first one (row, column).
    """

    values: Tensor
    title: str
    kind: str = "photo"
    unit: str = ""
    note: str = ""
    scale: float | None = None
    mark: Mark | None = None
    circles: Sequence[tuple[float, float]] = ()
    rectangle: tuple[tuple[int, int], tuple[int, int]] | None = None
    crop: Window | None = None
    frames: Sequence[tuple[Window, str]] = ()
    step: int = 1
    first: tuple[int, int] = (0, 0)


def sheet(rows: Sequence[Sequence[Panel | None]], title: str, subtitle: str = "") -> bytes:
    """The panels as one PNG, row by row; None leaves a place empty.

    sheet([[Panel(torch.rand(3, 8, 8), "input"), Panel(torch.randn(8, 8), "r", "signed")]], "mine")
    """
    columns = max(len(row) for row in rows)
    lines = [max(_lines(panel) for panel in row if panel) for row in rows]
    cell_w = _LEFT + SIDE + _GAP
    below = _TICKS + _BAR + _BAR_TEXT
    heights = [
        _TITLE + max(_size(panel)[0] for panel in row if panel) + below + _NOTE * count + _GAP
        for row, count in zip(rows, lines, strict=True)
    ]
    total_w, total_h = columns * cell_w + _GAP, _HEAD + sum(heights)
    with rc_context(_STYLE):
        figure = Figure(figsize=(total_w / DPI, total_h / DPI), dpi=DPI)
        figure.text(16 / total_w, 1 - 8 / total_h, title, va="top", fontsize=11, fontweight="bold")
        figure.text(16 / total_w, 1 - 44 / total_h, subtitle, va="top", fontsize=8, color=GREY)
        top = _HEAD
        for row, height in zip(rows, heights, strict=True):
            for column, panel in enumerate(row):
                if panel:
                    _draw(figure, panel, column * cell_w + _LEFT, top + _TITLE)
            top += height
        return _png(figure)


def _size(panel: Panel) -> tuple[int, int]:
    """Height and width on the sheet, in device pixels."""
    height, width = (panel.crop[2],) * 2 if panel.crop else panel.values.shape[-2:]
    longer = max(height, width)
    return round(SIDE * height / longer), round(SIDE * width / longer)


def _lines(panel: Panel) -> int:
    return len(_wrapped(panel.note))


def _wrapped(note: str) -> list[str]:
    return [part for line in note.splitlines() for part in textwrap.wrap(line, 38)]


def _draw(figure: Figure, panel: Panel, left: int, top: int) -> None:
    total_w, total_h = figure.get_size_inches() * DPI
    height, width = _size(panel)

    def box(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        return x / total_w, 1 - (y + h) / total_h, w / total_w, h / total_h

    axes = figure.add_axes(box(left, top, width, height), label=f"{left} {top}")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    x, y = left / total_w, 1 - (top - 8) / total_h
    figure.text(x, y, panel.title, va="bottom", fontsize=9, fontweight="bold")
    drawn = _picture(axes, panel)
    under = top + height + _TICKS
    if panel.kind != "photo":
        place = figure.add_axes(box(left, under, width, _BAR), label=f"{left} {top} bar")
        _bar(figure, place, drawn, panel)
        under += _BAR + _BAR_TEXT
    note = "\n".join(_wrapped(panel.note))
    figure.text(x, 1 - (under + 2) / total_h, note, va="top", fontsize=8, linespacing=1.25)


def _picture(axes: Axes, panel: Panel) -> Any:
    values, corner, step = panel.values.detach().cpu(), panel.first, panel.step
    if panel.crop:
        top, left, side = panel.crop
        values = values[..., top : top + side, left : left + side]
        corner = top, left
    height, width = values.shape[-2:]
    extent = (
        corner[1] - step / 2,
        corner[1] + (width - 0.5) * step,
        corner[0] + (height - 0.5) * step,
        corner[0] - step / 2,
    )
    # Left to itself, matplotlib blurs what it enlarges by little.
    if panel.kind == "photo":
        rgb = values.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0)
        drawn = axes.imshow(rgb.numpy(), extent=extent, interpolation="nearest")
    else:
        colours = _colours(panel)
        drawn = axes.imshow(values.numpy(), extent=extent, interpolation="nearest", **colours)
    if panel.mark:
        colour = "white" if panel.kind == "energy" else "black"
        for radii, dashes in zip(panel.circles, _DASHES, strict=False):
            down, right = (max(2 * radius, 1.0) for radius in radii)
            ring = Ellipse(
                (panel.mark[1], panel.mark[0]), right, down, fill=False, edgecolor=colour
            )
            ring.set_linestyle(dashes)
            axes.add_patch(ring)
        if not panel.circles:
            _circle(axes, max(height, width), panel.mark)
        axes.plot(*panel.mark[::-1], "+", color=colour, markersize=4, markeredgewidth=0.8)
        axes.set_xlim(extent[:2])
        axes.set_ylim(extent[2:])
    if panel.rectangle:
        (top, bottom), (west, east) = panel.rectangle
        size = east - west, bottom - top
        ends = Rectangle((west - 0.5, top - 0.5), *size, fill=False, edgecolor="white")
        axes.add_patch(ends)
    for window, label in panel.frames:
        _frame(axes, window, label)
    return drawn


def _colours(panel: Panel) -> dict[str, Any]:
    largest = panel.scale or panel.values.abs().nan_to_num().max().item() or 1.0
    if panel.kind == "signed":
        return {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    if panel.kind == "positive":
        return {"cmap": "viridis", "vmin": 0.0, "vmax": largest}
    shown = panel.values[panel.values > largest * 10.0**-_DECADES]
    least = shown.min().item() if len(shown) else 0.0
    norm = LogNorm(least if 0 < least < largest else 0.1 * largest, largest, clip=True)
    return {"cmap": "inferno", "norm": norm}


def _bar(figure: Figure, place: Axes, drawn: Any, panel: Panel) -> None:
    low, high = drawn.get_clim()
    beyond = panel.scale is not None and panel.values.abs().max().item() > high * (1 + 1e-6)
    extend = ("both" if panel.kind == "signed" else "max") if beyond else "neither"
    bar = figure.colorbar(drawn, cax=place, orientation="horizontal", extend=extend)
    ticks = [low, (low * high) ** 0.5 if panel.kind == "energy" else (low + high) / 2, high]
    bar.ax.xaxis.set_major_locator(FixedLocator(ticks))
    bar.ax.xaxis.set_minor_locator(NullLocator())
    bar.ax.set_xticklabels([_number(tick) if tick else "0" for tick in ticks])
    for label, side in zip(bar.ax.get_xticklabels(), ("left", "center", "right"), strict=True):
        label.set_horizontalalignment(side)
    bar.ax.set_xlabel(panel.unit, labelpad=2, fontsize=8)
    bar.outline.set_linewidth(0.6)  # pyright: ignore[reportCallIssue]
