"""Walks away from a photo as a picture: errors, and the decisions that flip in each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..study.walks import Walk
from .pictures import _STYLE, BLUE, DPI, GREY, RED, _place, _png, _title

_COLOURS = (BLUE, RED, "#7b8a3a", "#8f5aa8", "#c98a1b", "#3f8f8a")
_WIDTH, _LEFT, _RIGHT, _CURVES = 8.2, 0.75, 0.2, 2.2  # inches
_ROW, _LEAST_MAP, _NAMES, _GAP, _BAR = 0.135, 0.6, 1.65, 0.22, 0.95
_MOST_ROWS = 64
_RAISED = str.maketrans(
    "0123456789", "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
)


def walk_sheet(found: Sequence[Walk], title: str, note: str) -> bytes:
    """The relative error and the share of flipped decisions against the distance, a line for each
    direction with its deviation over draws, a dot and a dotted line at t*, where it is exact;
    beneath, for each direction, the share that flipped in each layer.

    walk_sheet(walks(system, ways), "a network on a photo", "exact until the dots")
    """
    rows = [i for i, n in enumerate(found[0].drifts[0].decisions.tolist()) if n]
    maps = max(min(len(rows), _MOST_ROWS) * _ROW, _LEAST_MAP)
    height = 0.62 + _CURVES + (0.62 + maps + 0.5 if rows else 0.15)
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), dpi=DPI)
        wide = (_WIDTH - 2 * _LEFT - 0.1 - _RIGHT) / 2
        errors = _place(figure, _LEFT, 0.62, wide, _CURVES - 0.42)
        shares = _place(figure, 2 * _LEFT + wide + 0.1, 0.62, wide, _CURVES - 0.42)
        _curves(errors, found, "error / change foretold", [walk.relative for walk in found])
        _curves(shares, found, "decisions flipped", [walk.share for walk in found])
        errors.axhline(1.0, color=GREY, linewidth=0.6, linestyle=(0, (4, 3)))
        shares.legend(fontsize=7.5, loc="upper left", handlelength=1.4, edgecolor="none")
        if rows:
            top = 0.62 + _CURVES + 0.62
            across = (_WIDTH - _NAMES - _RIGHT - _BAR + 0.3) / len(found)
            for i, walk in enumerate(found):
                axes = _place(figure, _NAMES + i * across, top, across - _GAP, maps)
                image = _layers(axes, walk, rows, named=not i)
                axes.set_title(walk.direction.name, fontsize=8.5, loc="left", pad=3)
                if not i:
                    bar = _place(figure, _WIDTH - _RIGHT - 0.52, top, 0.1, min(maps, 1.6))
                    figure.colorbar(image, cax=bar, format=FuncFormatter(_percent))
                    bar.tick_params(labelsize=7)
            label = "share of each layer's decisions that flipped, layers from the first down"
            figure.text(_NAMES / _WIDTH, 1 - (top - 0.32) / height, label, fontsize=8, color=GREY)
        _title(figure, title, 24)
        figure.text(24 / (_WIDTH * DPI), 1 - 0.28 / height, note, va="top", fontsize=8, color=GREY)
        return _png(figure)


def _curves(axes: Axes, found: Sequence[Walk], label: str, values: Sequence[torch.Tensor]) -> None:
    least = math.inf
    for walk, colour, each in zip(found, _cycle(len(found)), values, strict=True):
        ts, mean = walk.drifts[0].ts, each.mean(0)
        # Nothing has a place on this scale; before t* what there is is rounding.
        shown = mean > (1e-12 if walk.reason is None else 0)
        if walk.first is not None:
            shown &= ts >= walk.first[0]
        least = min(least, *mean[shown].tolist(), math.inf)
        axes.plot(
            ts[shown],
            mean[shown],
            color=colour,
            linewidth=1.2,
            marker=".",
            markersize=3,
            label=walk.direction.name,
        )
        if len(each) > 1 and shown.any():
            spread = each.std(0)
            low, high = (mean - spread).clamp(min=1e-12), mean + spread
            axes.fill_between(ts[shown], low[shown], high[shown], color=colour, alpha=0.18, lw=0)
        if walk.first is not None and math.isfinite(walk.first[0]) and walk.first[0] > 0:
            axes.axvline(walk.first[0], color=colour, linewidth=0.8, linestyle=":")
    _logarithmic(axes, found)
    axes.set_yscale("log")
    if math.isfinite(least):
        axes.set_ylim(bottom=least / 2)
    else:  # an axis of logarithms wants something to show
        axes.set_ylim(1e-3, 1)
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(label, fontsize=8.5, loc="left", pad=3)
    axes.set_xlabel("t, root mean square change in grey levels of 255")


def _layers(axes: Axes, walk: Walk, rows: Sequence[int], named: bool):
    ts = walk.drifts[0].ts
    ratio = (ts[1] / ts[0]).sqrt()
    edges = torch.cat([ts[:1] / ratio, ts * ratio])
    share = walk.by_entry[:, rows].T
    image = axes.pcolormesh(
        edges.numpy(),
        torch.arange(len(rows) + 1).numpy(),
        share.masked_fill(share == 0, torch.nan).numpy(),
        cmap="YlGnBu",
        norm=LogNorm(1e-6, 1),
        rasterized=True,
    )
    axes.set_ylim(len(rows), 0)
    _logarithmic(axes, [walk], 4)
    axes.tick_params(axis="x", labelsize=7)
    names = [walk.drifts[0].names[i] for i in rows]
    if named and len(rows) <= _MOST_ROWS:
        axes.set_yticks([i + 0.5 for i in range(len(rows))], list(map(_short, names)), fontsize=6)
    else:
        axes.set_yticks([])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("t", fontsize=8)
    if walk.first is not None and math.isfinite(walk.first[0]) and walk.first[0] > 0:
        axes.axvline(walk.first[0], color=RED, linewidth=0.9, linestyle=":")
    return image


def _logarithmic(axes: Axes, found: Sequence[Walk], labels: int = 6) -> None:
    ts = found[0].drifts[0].ts
    axes.set_xscale("log")
    axes.set_xlim(ts[0].item() / 1.3, ts[-1].item() * 1.3)
    axes.xaxis.set_major_locator(LogLocator(numticks=labels))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _percent(value: float, _: int) -> str:
    return f"{_number(100 * value)} %"


def _number(value: float) -> str:
    """Small powers of ten by their exponent, without the mathtext that is off here."""
    exponent = round(math.log10(value)) if value > 0 else 0
    if exponent > -3:
        return f"{value:g}"
    return "10\u207b" + str(-exponent).translate(_RAISED)


def _short(name: str) -> str:
    name = name.replace(" (leaky_relu)", " (leaky)").replace("max_pool2d", "pool")
    return name if len(name) <= 30 else "\u2026" + name[-29:]


def _cycle(count: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]
