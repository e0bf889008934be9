"""docs/benchmarks.md and its plots from the committed results: python -m benchmarks.page"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

T = TypeVar("T")

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "benchmarks"

PRODUCTS = {"filter": "F v", "transpose": "Fᵀ u"}

WORDS = {
    "storage": """## What is kept for one image
Counted on meta tensors. "ReLU activations" is DFV's record in float32, and the second column the
paper's Table 1, which prints them as values x 4 bytes x 1000 images / 10^6 / 1024. Autograd is what
a graph of the plain network keeps with frozen weights, "doubled batch" the same of the paper's
doubled batch in torch functions.""",
    "peers": """## F v and Fᵀ u by every way
Time over that of a plain pass (forward for F v, forward and backward with frozen weights for Fᵀ u);
below 1 is faster than torch itself. Gradients and "tape of Taylor" give the Jacobian, which is F
where the network is piecewise linear; on CycleGAN the other ways freeze as the paper does. Ways
that freeze alike are compared before they are timed.

Where a peer is faster: `torch.func.linearize` and the kept graph of `torch.func.vjp` on SqueezeNet
with one probe, whose calls are so short that following them in Python counts, which the tape does
anew in each product. With 8 probes on EDSR and CycleGAN the fastest ways are within 15 % of each
other.""",
    "dfv": """## Against Deep Filter Visualization
Table 2 of the paper: DFV records every activation, in memory or in files that the page cache does
not hold.""",
    "memory": """## Memory
A fresh process for each: MB kept by the way, and at the peak of one product of one probe, over what
the process held with the network loaded.""",
    "kernels": """## Operators
A doubled batch of 64 x height x 512 channels and pixels, against the same in torch functions.
"Of a copy" is the speed in bytes that must move, over that of copying such a tensor.""",
    "scaling": """## How cost grows
The pixels that fit lie on the line through the peaks of two measured sizes; a third confirms it to
10 %.""",
    "ledger": """## The ledger beside FullGrad
FullGrad is input gradients and bias gradients by plain autograd: a pass forward and one back. So it
is for the ledger, which also counts what is no layer's bias, and keeps no gradients; where a
network's calls are short, following them in Python counts.""",
    "svd": """## Singular values
The ten largest, see [svd.md](svd.md).""",
}


def table(rows: list[dict]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[_text(value) for value in row.values()] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(value: object) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)


def _distinct(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))


def pivot(rows: list[dict], product: str) -> list[dict]:
    """A row per way: its time over a plain pass, by network and number of probes."""
    rows = [row for row in rows if row["product"] == product]
    cases = _distinct((row["network"], row["probes"]) for row in rows)
    found = {(row["way"], row["network"], row["probes"]): row for row in rows}
    plain = {"way": "plain, ms"}
    for network, probes in cases:
        plain[_case(network, probes)] = found["plain", network, probes]["ms"]
    lines = [plain]
    for way in _distinct(row["way"] for row in rows if row["way"] != "plain"):
        line: dict = {"way": way}
        for network, probes in cases:
            row = found.get((way, network, probes))
            line[_case(network, probes)] = row and row["over plain"]
        lines.append(line)
    return lines


def _case(network: str, probes: int) -> str:
    return f"{network.split(',')[0]}, {probes}"


def products(rows: list[dict]) -> str:
    parts = []
    for product, name in PRODUCTS.items():
        parts.append(f"{name}, over a plain pass, by network and number of probes:\n")
        parts.append(table(pivot(rows, product)) + "\n")
    return "\n".join(parts)


def bars(rows: list[dict], path: Path) -> None:
    """Time over a plain pass with one probe, a panel per product."""
    lines = {p: pivot([r for r in rows if r["probes"] == 1], p)[1:] for p in PRODUCTS}
    figure, panels = plt.subplots(1, 2, figsize=(11, 5.5), layout="constrained")
    for panel, (product, name) in zip(panels, PRODUCTS.items(), strict=True):
        ways = [line["way"] for line in lines[product]][::-1]
        cases = [c for c in lines[product][0] if c != "way"]
        for i, case in enumerate(cases):
            values = [line[case] or float("nan") for line in lines[product]][::-1]
            heights = [y + 0.8 * (0.5 - (i + 0.5) / len(cases)) for y in range(len(ways))]
            panel.barh(heights, values, 0.8 / len(cases), label=case.rsplit(",", 1)[0])
        panel.set(title=name, xlabel="time over a plain pass (1 probe)")
        panel.set_yticks(range(len(ways)), ways)
        panel.axvline(1, color="black", linewidth=0.8)
    panels[0].legend(fontsize=8)
    save(figure, path)


def curves(rows: list[dict], path: Path) -> None:
    """Seconds against each quantity that was varied."""
    rows = [row for row in rows if "GB" not in row["what"]]
    quantities = _distinct(row["what"] for row in rows)
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
        panel.legend(fontsize=8)
    save(figure, path)


def save(figure, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".part.png")
    figure.savefig(partial, dpi=90)
    os.replace(partial, path)
    plt.close(figure)


def main() -> int:
    results: dict[str, tuple[list[dict], dict]] = {}
    for file in sorted(RESULTS.glob("*.json")):
        found = json.loads(file.read_text())
        for name in WORDS:
            if name in found:
                results[name] = found[name], found
    if not results:
        print(f"benchmarks: no results in {RESULTS}", file=sys.stderr)
        return 2
    machine = next(iter(results.values()))[1]["machine"]
    parts = [
        "# Benchmarks",
        "Measured by the commands below; the page itself is made by `python -m benchmarks.page`.\n"
        "All ways of a table ran interleaved in one process. Medians are shown; spreads are in\n"
        "benchmarks/results. Measured on: "
        + ", ".join(f"{key} {value}" for key, value in machine.items())
        + ".",
    ]
    for name, words in WORDS.items():
        if name not in results:
            continue
        rows, found = results[name]
        command = "python -m benchmarks " + " ".join(found["command"])
        parts += [words, f"`{command}`", *([found["note"] + "."] if "note" in found else [])]
        if name in ("peers", "dfv"):
            parts.append(products(rows))
        else:
            parts.append(table(rows))
        if name == "peers":
            bars(rows, PLOTS / "peers.png")
            parts.append("![Time of each way over a plain pass](benchmarks/peers.png)")
        if name == "scaling":
            curves(rows, PLOTS / "scaling.png")
            parts.append("![Cost against size](benchmarks/scaling.png)")
    partial = PAGE.with_suffix(".part")
    partial.write_text("\n\n".join(parts) + "\n")
    os.replace(partial, PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
