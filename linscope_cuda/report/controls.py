"""What explanations are worth, as a picture: curves, shuffled networks, shares of the layers."""

from __future__ import annotations

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

from ..study.attributions import OURS
from ..study.controls import CASES, SHARES, Controls
from .pictures import _STYLE, BLUE, DPI, GREY, INK, PALE, RED, SLATE, _place, _png, _title

_WIDTH, _LEFT, _RIGHT, _GAP = 8.2, 0.62, 0.2, 0.75  # inches
_HEAD, _TALL, _BETWEEN = 0.75, 2.0, 0.78
_OTHERS = ("#7b8a3a", "#8f5aa8", GREY, PALE)
_DASHES = {"centre": (0, (5, 2)), "random": (0, (1.5, 1.5))}


def controls_sheet(found: Controls, title: str, note: str) -> bytes:
    """Deletion and insertion curves of each method, a line each; how alike its map stays while the
    network's modules are shuffled from the last on; beneath, each entry's share of a score in four
    cases.

    controls_sheet(controls(model, photos), "a classifier", "20 photos")
    """
    wide = (_WIDTH - _LEFT - _RIGHT - 2 * _GAP) / 3
    cases = len(found.parts)
    height = _HEAD + _TALL + _BETWEEN + cases * 1.0 + 0.55
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), dpi=DPI)
        for i, (which, words) in enumerate(
            (("deletion", "the best patches taken"), ("insertion", "the best patches given back"))
        ):
            axes = _place(figure, _LEFT + i * (wide + _GAP), _HEAD, wide, _TALL - 0.35)
            _curves(axes, found, which)
            axes.set_title(words, fontsize=8.5, loc="left", pad=3)
        axes = _place(figure, _LEFT + 2 * (wide + _GAP), _HEAD, wide, _TALL - 0.35)
        _cascades(axes, found)
        top = _HEAD + _TALL + _BETWEEN
        names = found.entries()
        for i, (case, parts) in enumerate(found.parts.items()):
            axes = _place(figure, _LEFT, top + i, _WIDTH - _LEFT - _RIGHT, 0.72)
            _shares(axes, [[p.get(name, 0.0) for name in names] for p in parts])
            axes.set_title(f"{case}: {CASES[case]}", fontsize=8, loc="left", pad=2)
            if i < cases - 1:
                axes.set_xticklabels([])
        axes.set_xlabel(f"0: {names[0]};  1 ... {len(names) - 1}: the calls in order")
        label = "share of a score that each entry of its ledger has, without signs"
        figure.text(_LEFT / _WIDTH, 1 - (top - 0.38) / height, label, fontsize=8, color=GREY)
        _title(figure, title, 24)
        figure.text(24 / (_WIDTH * DPI), 1 - 0.28 / height, note, va="top", fontsize=8, color=GREY)
        return _png(figure)


def _curves(axes: Axes, found: Controls, which: str) -> None:
    for method, colour in _coloured(found):
        mean = torch.stack(getattr(found, which)[method]).mean(0)
        dashes = _DASHES.get(method, "-")
        axes.plot(SHARES, mean, color=colour, linewidth=1.2, linestyle=dashes, label=method)
    if which == "deletion":
        axes.legend(fontsize=6.5, frameon=False, handlelength=2.0, labelspacing=0.3)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, None)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("of the picture")
    axes.set_ylabel("probability of the label" if which == "deletion" else "")
    axes.spines[["top", "right"]].set_visible(False)


def _cascades(axes: Axes, found: Controls) -> None:
    for method, colour in _coloured(found):
        if method in found.alike:
            values = torch.stack(found.alike[method])
            mean = values.nanmean(0)
            axes.plot(
                found.counts,
                mean,
                color=colour,
                linewidth=1.2,
                linestyle=_DASHES.get(method, "-"),
                marker=".",
            )
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.set_xscale("log")
    axes.set_xticks(found.counts, list(map(str, found.counts)))
    axes.set_xticks([], minor=True)
    axes.set_ylim(-0.25, 1.02)
    axes.set_xlabel(f"modules shuffled, of {found.modules}")
    axes.set_title("likeness when shuffled", fontsize=8.5, loc="left", pad=3)
    axes.spines[["top", "right"]].set_visible(False)


def _shares(axes: Axes, rows: list[list[float]]) -> None:
    values: Tensor = torch.tensor(rows, dtype=torch.float64)
    places = range(values.shape[1])
    axes.bar(places, values.mean(0).tolist(), 0.8, color=[BLUE, *[SLATE] * (len(places) - 1)])
    if len(values) > 1:
        spread = values.std(0).tolist()
        axes.errorbar(places, values.mean(0).tolist(), spread, fmt="none", ecolor=INK, lw=0.7)
    axes.set_xlim(-1, len(places))
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.spines[["top", "right"]].set_visible(False)


def _coloured(found: Controls) -> list[tuple[str, str]]:
    own = {name: colour for name, colour in zip(OURS, (BLUE, RED), strict=True)}
    others = iter(_OTHERS * len(found.methods))
    return [(method, own.get(method) or next(others)) for method in found.methods]
