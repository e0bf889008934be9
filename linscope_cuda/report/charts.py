"""Pictures of a classifier's scores as PNG bytes: what adds to them, what pixels vote for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ..study.close_up import robust_scale
from .digits import minus, percent, significant
from .pictures import _STYLE, BLUE, DPI, GREY, INK, PALE, RED, SLATE, _png, _title

MOST_ROWS = 60  # labelled rows; of more entries, columns with numbers are drawn
_ROW, _WIDTH = 0.2, 6.4  # inches

Bars = Sequence[tuple[float, float]]  # mean and deviation


def contributions(
    labels: Sequence[str],
    before: Bars,
    title: str,
    note: str,
    after: Bars | None = None,
    legend: tuple[str, str] = ("before", "after"),
) -> bytes:
    """Shares of a score, a bar for each with its deviation as a line, in the order given (Fig. 4).

    The first two bars, the input's and the normalisation's, are set apart by colour; `after` puts a
    second bar beside each. More than 60 entries become columns, numbered from 0, and `after` a
    second row of them.

    contributions(["input", "conv1"], [(0.8, 0.1), (0.2, 0.1)], "a network", "they sum to 1")
    """
    with rc_context(_STYLE):
        draw = _rows if len(labels) <= MOST_ROWS else _columns
        figure = draw(labels, before, after, legend)
        _title(figure, title)
        height = figure.get_figheight()
        figure.text(10 / (_WIDTH * DPI), 1 - 0.26 / height, note, va="top", fontsize=8, color=GREY)
        return _png(figure)


@dataclass(frozen=True, eq=False)
class Label:
    """A label as `ballot` shows it: its discussion (H, W), and the picture (3, H, W) masked by its
    votes.
    """

    name: str
    score: float
    share: float
    discussion: Tensor
    masked: Tensor


def ballot(
    picture: Tensor,
    labels: Sequence[Label],
    popular: Sequence[tuple[str, float]],
    title: str,
    note: str,
) -> bytes:
    """The picture (3, H, W) in 0..1 and, for each label, its discussion above the pixels that voted
    for it (Fig. 3). Red adds to the score, blue takes from it, each discussion on its own scale.
    `popular` are labels and their shares of the votes, of which the first are listed.

    ballot(torch.rand(3, 8, 8), labels, [("cat", 0.3)], "a network", "every pixel votes once")
    """
    columns = 1 + len(labels)
    side, gap, left, top, caption = 1.75, 0.16, 0.1, 0.5, 0.34  # inches
    scale_bar = 0.36  # beneath each discussion
    tall = side * picture.shape[1] / picture.shape[2]
    width = max(left + columns * (side + gap), _WIDTH)
    height = top + 2 * (tall + caption) + scale_bar + 0.1
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI)

        def show(column: int, row: int, text: str, values: Tensor, scale: float = 0.0) -> None:
            x = left + column * (side + gap)
            y = height - top - (row + 1) * (tall + caption) - row * scale_bar
            colours = {"cmap": "RdBu_r", "vmin": -scale, "vmax": scale} if scale else {}
            axes = figure.add_axes((x / width, y / height, side / width, tall / height))
            drawn = axes.imshow(values.numpy(), interpolation="nearest", **colours)
            axes.set_axis_off()
            axes.set_title(text, fontsize=7.5, loc="left", pad=3)
            if scale:
                place = (x / width, (y - 0.11) / height, side / width, 0.06 / height)
                _scale_bar(figure, figure.add_axes(place), drawn, values, scale)

        show(0, 0, "the input", picture.permute(1, 2, 0))
        for i, label in enumerate(labels, 1):
            scale = robust_scale(label.discussion)
            above = (
                f"{_short(label.name, 24)}\ndiscussion, score {minus(significant(label.score, 3))}"
            )
            show(i, 0, above, label.discussion, scale)
            beneath = f"votes of {percent(label.share)} of the pixels"
            show(i, 1, beneath, label.masked.permute(1, 2, 0))
        listed = [f"{percent(share)}  {_short(name, 20)}" for name, share in popular[:7]]
        key = [
            "",
            "of a discussion, red adds",
            "to the score, blue takes from it",
            "(score per pixel)",
        ]
        lines = "\n".join(["most votes", *listed, *key])
        y = (height - top - tall - 2 * caption - scale_bar + 0.04 + 0.16) / height
        figure.text(left / width, y, lines, va="top", fontsize=7.5, linespacing=1.5)
        _title(figure, title, round(left * DPI))
        figure.text(left / width, 1 - 0.26 / height, note, va="top", fontsize=8, color=GREY)
        return _png(figure)


def _scale_bar(figure: Figure, beneath: Axes, drawn, values: Tensor, scale: float) -> None:
    beyond = values.abs().max().item() > scale * (1 + 1e-6)
    bar = figure.colorbar(
        drawn,
        cax=beneath,
        orientation="horizontal",
        extend="both" if beyond else "neither",
        ticks=[-scale, 0, scale],
    )
    end = significant(scale, 2)
    bar.ax.set_xticklabels([minus(f"-{end}"), "0", end], fontsize=6.5)
    for label, place in zip(bar.ax.get_xticklabels(), ("left", "center", "right"), strict=True):
        label.set_horizontalalignment(place)
    bar.ax.tick_params(length=2, pad=1.5)
    bar.outline.set_linewidth(0.5)  # pyright: ignore[reportCallIssue]


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "\u2026"


def _rows(
    labels: Sequence[str], before: Bars, after: Bars | None, legend: tuple[str, str]
) -> Figure:
    row = _ROW * (1.25 if after else 1)
    height = 1.1 + row * len(labels)
    figure = Figure(figsize=(_WIDTH, height), dpi=DPI)
    axes = figure.add_axes((0.31, 0.5 / height, 0.66, 1 - 1.0 / height))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.axvline(0, color=GREY, linewidth=0.8)
    pair = 0.2 if after else 0.0
    for bars, shift, name, colours in (
        (before, -pair, legend[0], _colours(labels) if not after else SLATE),
        (after or (), pair, legend[1], RED),
    ):
        if bars:
            places = [i + shift for i in range(len(labels))]
            means, deviations = zip(*bars, strict=True)
            axes.barh(places, means, 0.38 if after else 0.64, color=colours, label=name)
            _lines(axes, places, means, deviations, across=False)
    low, high = _extent([*before, *(after or ())])
    axes.set_xlim(low, high + 0.1 * (high - low))
    for i, (mean, deviation) in enumerate(before if not after else ()):
        axes.annotate(
            minus(significant(mean, 3)),
            (max(mean + deviation, mean, 0), i),
            xytext=(4, 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=7,
        )
    short = [name if len(name) <= 32 else "\u2026" + name[-31:] for name in labels]
    axes.set_yticks(range(len(short)), short, fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("share of the score")
    if after:
        axes.legend(frameon=False, loc="lower right")
    return figure


def _columns(
    labels: Sequence[str], before: Bars, after: Bars | None, legend: tuple[str, str]
) -> Figure:
    """Numbered columns; what comes after has a panel of its own, on the same scale."""
    panels = [(before, legend[0] if after else "", _colours(labels))]
    panels += [(after, legend[1], [RED] * len(labels))] if after else []
    height = 0.65 + 2.4 * len(panels)
    figure = Figure(figsize=(_WIDTH, height), dpi=DPI)
    for i, (bars, name, colours) in enumerate(panels):
        bottom = 0.5 + 2.4 * (len(panels) - 1 - i)
        axes = figure.add_axes((0.1, bottom / height, 0.88, 1.95 / height))
        axes.spines[["top", "right"]].set_visible(False)
        axes.axhline(0, color=GREY, linewidth=0.8)
        means, deviations = zip(*bars, strict=True)
        axes.bar(range(len(labels)), means, 0.8, color=colours)
        _lines(axes, range(len(labels)), means, deviations, across=True)
        axes.set_title(name, fontsize=8.5, loc="left", pad=2)
        axes.set_xlim(-1, len(labels))
        axes.set_ylim(*_extent([*before, *(after or ())]))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_ylabel("share of the score")
    axes.set_xlabel(f"0: {labels[0]};  1 ... {len(labels) - 1}: the calls in order, see ledger.csv")
    return figure


def _colours(labels: Sequence[str]) -> list[str]:
    special = {"input": BLUE, "normalisation": PALE}
    return [special.get(label, SLATE) for label in labels]


def _lines(axes: Axes, places, means, deviations, across: bool) -> None:
    if not any(deviations):
        return
    errors = {"yerr": deviations} if across else {"xerr": deviations}
    at = (places, means) if across else (means, places)
    axes.errorbar(*at, **errors, fmt="none", ecolor=INK, elinewidth=0.9)


def _extent(bars: Bars) -> tuple[float, float]:
    low = min(0.0, *(mean - deviation for mean, deviation in bars))
    high = max(0.0, *(mean + deviation for mean, deviation in bars))
    room = 0.04 * (high - low or 1)
    return low - (room if low < 0 else 0), high + room
