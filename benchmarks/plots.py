"""The plots of docs/benchmarks.md."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib import ticker

PRODUCTS = {"filter": "F v", "transpose": "Fᵀ u"}


def bars(rows: list[dict], path: Path) -> None:
    """Time over a plain pass with one probe, a panel per product."""
    rows = [row for row in rows if row["probes"] == 1 and row["way"] != "plain"]
    networks = list(dict.fromkeys(row["network"] for row in rows))
    figure, panels = plt.subplots(1, 2, figsize=(11, 5.5), layout="constrained")
    for panel, (product, name) in zip(panels, PRODUCTS.items(), strict=True):
        mine = [row for row in rows if row["product"] == product]
        ways = list(dict.fromkeys(row["way"] for row in mine))[::-1]
        for i, network in enumerate(networks):
            found = {row["way"]: row["over plain"] for row in mine if row["network"] == network}
            heights = [y + 0.8 * (0.5 - (i + 0.5) / len(networks)) for y in range(len(ways))]
            values = [found.get(way, float("nan")) for way in ways]
            panel.barh(heights, values, 0.8 / len(networks), label=network)
        panel.set(title=name, xlabel="time over a plain pass (1 probe)")
        panel.set_yticks(range(len(ways)), ways)
        panel.axvline(1, color="black", linewidth=0.8)
    panels[0].legend(fontsize=8)
    save(figure, path)


def curves(rows: list[dict], path: Path) -> None:
    """Seconds against each quantity that was varied."""
    quantities = list(dict.fromkeys(row["what"] for row in rows))
    figure, panels = plt.subplots(
        1, len(quantities), figsize=(3.6 * len(quantities), 3.4), layout="constrained"
    )
    for panel, what in zip(panels, quantities, strict=True):
        for column, name in {
            "filter s": "F v",
            "transpose s": "Fᵀ u",
            "plain s": "plain forward",
            "whole s": "the whole",
        }.items():
            points = [(r["value"], r[column]) for r in rows if r["what"] == what and r[column]]
            if points:
                panel.plot(*zip(*points, strict=True), "o-", label=name)
        panel.set(xlabel=what, ylabel="seconds", xscale="log", yscale="log")
        values = [row["value"] for row in rows if row["what"] == what]
        panel.set_xticks(values, [f"{value:,}" for value in values], rotation=45)
        panel.xaxis.set_minor_locator(ticker.NullLocator())
        panel.legend(fontsize=8)
    save(figure, path)


def save(figure, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".part.png")
    figure.savefig(partial, dpi=90)
    os.replace(partial, path)
    plt.close(figure)


PLOTS = {
    "ways": ("Time of each way over a plain pass", bars),
    "scaling": ("Cost against size", curves),
}
