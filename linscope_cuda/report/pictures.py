"""Pictures of tensors as PNG bytes: photos, signed maps, bars.

Drawn with matplotlib's Agg canvas alone: no window, no global state. A pixel of a tensor becomes
a square of whole device pixels, so that all are equally large.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator
from torch import Tensor

from .digits import minus, significant

DPI = 200
SIDE = 576  # device pixels of a picture's longer side, nearly
LARGE = 720  # more would leave its text too small on a narrow page
SMALL = 400  # of one that stands beside others: its text is then larger when scaled down
_LEFT, _RIGHT, _TOP, _TITLE = 78, 46, 14, 44
_TICKS = 46
_CHART = 4.2  # inches
_BAR_GAP, _BAR, _BAR_TEXT = 20, 22, 92
_PALEST = 0.45  # of a photo under colours

INK, GREY, BLUE, RED, SLATE = "#1f2328", "#6e7781", "#2166ac", "#d6604d", "#64748b"
PALE = "#b6c6d8"
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.6,
    "axes.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # a class name may hold a dollar sign
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
}

Mark = tuple[float, float]
Window = tuple[int, int, int]


def photo(
    values: Tensor,
    title: str,
    mark: Mark | None = None,
    frames: Sequence[tuple[Window, str]] = (),
) -> bytes:
    """A colour picture (3, H, W) or (1, H, W) in 0..1, a circle at `mark`, labelled frames.

    photo(torch.rand(3, 48, 48), "input", mark=(10, 20))
    """
    with rc_context(_STYLE):
        figure, axes = _canvas(values.shape[-2], values.shape[-1], title, SIDE, colour_bar=False)
        rgb = values.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0)
        _show(axes, rgb.numpy(), (0, 0))
        _circle(axes, max(values.shape[-2:]), mark)
        for window, label in frames:
            _frame(axes, window, label)
        return _png(figure)


def signed(
    values: Tensor,
    title: str,
    unit: str,
    scale: float | None = None,
    mark: Mark | None = None,
    window: Window | None = None,
    crop: Window | None = None,
    side: int = SIDE,
) -> bytes:
    """Signed numbers (H, W), blue below and red above a white zero, with a colour bar in `unit`.

    The bar ends at -scale and scale (None: the largest magnitude), and in a point where values
    lie beyond. `crop` shows this window only, with its place on the axes.

    signed(torch.randn(48, 48), "residual", "grey levels", scale=3.0)
    """
    top, left = 0, 0
    shown = values
    if crop:
        top, left, extent = crop
        shown = values[top : top + extent, left : left + extent]
    largest = values.abs().max().item()
    scale = scale or largest or 1.0
    with rc_context(_STYLE):
        figure, axes = _canvas(shown.shape[0], shown.shape[1], title, side, colour_bar=True)
        drawn = _show(axes, shown.numpy(), (top, left), cmap="RdBu_r", vmin=-scale, vmax=scale)
        _circle(axes, max(shown.shape), mark)
        if window:
            _frame(axes, window)
        _colour_bar(figure, axes, drawn, largest, scale, unit)
        return _png(figure)


def over(
    photo: Tensor,
    values: Tensor,
    title: str,
    unit: str,
    scale: float | None = None,
    crop: Window | None = None,
    side: int = SIDE,
) -> bytes:
    """Signed numbers (H, W) over a photo (C, H, W) in 0..1, which is drawn in pale grey: the larger
    a number, the more its colour covers. Otherwise as `signed`.

    over(torch.rand(3, 48, 48), torch.randn(48, 48), "row of F", "output per input")
    """
    top, left = 0, 0
    grey = photo.clamp(0, 1).double().mean(0)
    largest = values.abs().max().item()
    scale = scale or largest or 1.0
    if crop:
        top, left, extent = crop
        grey, values = (x[top : top + extent, left : left + extent] for x in (grey, values))
    pale = (_PALEST + (1 - _PALEST) * grey).numpy()
    coloured = ScalarMappable(Normalize(-scale, scale), _covering())
    with rc_context(_STYLE):
        figure, axes = _canvas(grey.shape[0], grey.shape[1], title, side, colour_bar=True)
        _show(axes, pale, (top, left), cmap="gray", vmin=0, vmax=1)
        _show(axes, coloured.to_rgba(values.numpy()), (top, left))
        _colour_bar(figure, axes, coloured, largest, scale, unit)
        return _png(figure)


def _covering() -> ListedColormap:
    """One blue and one red, the less transparent the further from zero."""
    sign = np.linspace(-1, 1, 257)
    colours = np.where(sign[:, None] < 0, to_rgba(BLUE), to_rgba("#b2182b"))
    colours[:, 3] = abs(sign)
    return ListedColormap(colours)


def _colour_bar(
    figure: Figure, axes: Axes, drawn: ScalarMappable, largest: float, scale: float, unit: str
) -> None:
    """Beneath the axes, in a point where values lie beyond the scale."""
    height = figure.get_figheight() * DPI
    box = axes.get_position()
    beneath = figure.add_axes((box.x0, _BAR_TEXT / height, box.width, _BAR / height), label="bar")
    bar = figure.colorbar(
        drawn,
        cax=beneath,
        orientation="horizontal",
        extend="both" if largest > scale * (1 + 1e-6) else "neither",
        ticks=FixedLocator([-scale, -scale / 2, 0, scale / 2, scale]),
    )
    bar.ax.set_xticklabels([_number(-scale), "", "0", "", _number(scale)])
    bar.ax.set_xlabel(unit, labelpad=3)
    bar.outline.set_linewidth(0.6)  # pyright: ignore[reportCallIssue]


def bars(
    labels: Sequence[str], values: Sequence[float], title: str, unit: str, signed: bool = True
) -> bytes:
    """One horizontal bar for each label; if `signed`, blue below and red above zero.

    bars(["tabby", "tiger cat"], [0.3, -0.1], "eigen-output", "entry")
    """
    with rc_context(_STYLE):
        figure, axes = _chart(len(labels), title, unit, values)
        places = range(len(labels))
        colours = [RED if v > 0 else BLUE for v in values] if signed else SLATE
        axes.barh(places, values, 0.62, color=colours)
        _label(axes, labels)
        _number_bars(axes, places, values)
        return _png(figure)


def parts(
    labels: Sequence[str],
    filtered: Sequence[float],
    residual: Sequence[float],
    title: str,
    unit: str,
) -> bytes:
    """Scores as sums of two bars each: the part of F x0 and the part of r.

    parts(["tabby"], [27.5], [4.5], "scores", "score")
    """
    with rc_context(_STYLE):
        figure, axes = _chart(2 * len(labels), title, unit, [*filtered, *residual])
        for values, colour, shift, name in (
            (filtered, BLUE, -0.2, "F x\u2080"),
            (residual, RED, 0.2, "r"),
        ):
            places = [i + shift for i in range(len(labels))]
            axes.barh(places, values, 0.36, color=colour, label=name)
            _number_bars(axes, places, values)
        _label(axes, labels)
        figure.legend(loc="upper right", frameon=False, ncols=2, borderaxespad=0.2)
        return _png(figure)


def spectrum(values: Sequence[float], errors: Sequence[float], title: str, bars: str = "") -> bytes:
    """Singular values as columns from zero, with their error bars; `bars` says what these are.

    spectrum([8.9, 8.7], [0.01, 0.02], "singular values")
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(_CHART, 2.7), dpi=DPI)
        axes = figure.add_axes((0.16, 0.18, 0.82, 0.68))
        places = range(1, len(values) + 1)
        axes.bar(places, values, 0.6, color=PALE, zorder=1)
        axes.errorbar(
            places, values, errors, fmt="_", color=INK, capsize=5, elinewidth=1.2, zorder=2
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(f"triplet (error bars: {bars})" if bars else "triplet")
        axes.set_ylabel("\u03c3 (output per input)")
        axes.set_ylim(0, 1.12 * max(v + e for v, e in zip(values, errors, strict=True)) or 1)
        axes.spines[["top", "right"]].set_visible(False)
        _title(figure, title)
        return _png(figure)


def _canvas(
    height: int, width: int, title: str, side: int, colour_bar: bool
) -> tuple[Figure, Axes]:
    """Axes whose box is a whole multiple of the picture's pixels."""
    longer = max(height, width)
    zoom = max(round(side / longer), 1)
    w, h = zoom * width, zoom * height
    below = _TICKS + (_BAR_GAP + _BAR + _BAR_TEXT if colour_bar else 0)
    total_w, total_h = _LEFT + w + _RIGHT, below + h + _TOP + _TITLE
    figure = Figure(figsize=(total_w / DPI, total_h / DPI), dpi=DPI)
    axes = figure.add_axes((_LEFT / total_w, below / total_h, w / total_w, h / total_h))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    _title(figure, title, _LEFT)
    return figure, axes


def _place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place on the figure, in inches from its upper left corner."""
    across, down = figure.get_size_inches()
    box = left / across, 1 - (top + height) / down, width / across, height / down
    return figure.add_axes(box)


def _title(figure: Figure, title: str, left: int = 10) -> None:
    width, height = figure.get_size_inches() * DPI
    figure.text(left / width, 1 - 8 / height, title, va="top", fontsize=10, fontweight="bold")


def _show(axes: Axes, values: np.ndarray, corner: tuple[int, int], **colours):
    (top, left), (height, width) = corner, values.shape[:2]
    extent = (left - 0.5, left + width - 0.5, top + height - 0.5, top - 0.5)
    return axes.imshow(values, interpolation="nearest", extent=extent, **colours)


# A white line under each black one keeps marks visible on any ground.
_LINES = ({"edgecolor": "white", "linewidth": 3.0}, {"edgecolor": "black", "linewidth": 1.2})


def _circle(axes: Axes, extent: int, mark: Mark | None) -> None:
    if mark:
        for line in _LINES:
            axes.add_patch(Circle((mark[1], mark[0]), max(0.045 * extent, 1.0), fill=False, **line))


def _frame(axes: Axes, window: Window, label: str = "") -> None:
    top, left, side = window
    for line in _LINES:
        axes.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, **line))
    if label:
        axes.annotate(
            label,
            (left - 0.5, top - 0.5),
            xytext=(2, -2),
            textcoords="offset points",
            va="top",
            fontsize=8,
            fontweight="bold",
            bbox={"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": "none"},
        )


def _chart(rows: int, title: str, unit: str, values: Sequence[float]) -> tuple[Figure, Axes]:
    height = 0.85 + 0.26 * rows
    figure = Figure(figsize=(_CHART, height), dpi=DPI)
    axes = figure.add_axes((0.40, 0.46 / height, 0.58, 1 - 0.80 / height))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    _room(axes, values, 0.45)
    axes.invert_yaxis()
    _title(figure, title)
    return figure, axes


def _label(axes: Axes, labels: Sequence[str]) -> None:
    short = [name if len(name) <= 22 else name[:21] + "\u2026" for name in labels]
    axes.set_yticks(range(len(short)), short)
    axes.tick_params(axis="y", length=0)


def _room(axes: Axes, values: Sequence[float], share: float) -> None:
    """Room for the numbers at the ends of bars, as a share of the axis."""
    low, high = min(0.0, *values), max(0.0, *values)
    room = share * (high - low or 1)
    axes.set_xlim(low - (room if low < 0 else 0), high + (room if high > 0 else 0))


def _number_bars(axes: Axes, places, values: Sequence[float], size: float = 8) -> None:
    for place, value in zip(places, values, strict=True):
        axes.annotate(
            minus(significant(value, 3)),
            (value, place),
            xytext=(3 if value >= 0 else -3, 0),
            textcoords="offset points",
            ha="left" if value >= 0 else "right",
            va="center_baseline",
            fontsize=size,
        )


def _number(value: float) -> str:
    return minus(f"{value:.0f}" if 100 <= abs(value) < 10000 else f"{value:.2g}")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
