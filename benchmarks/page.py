"""docs/benchmarks.md and its plots from the committed results: python -m benchmarks.page"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from .plots import PLOTS, PRODUCTS
from .tables import markdown
from .words import WORDS

T = TypeVar("T")

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
PICTURES = ROOT / "docs" / "benchmarks"


def _distinct(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))


def pivot(rows: list[dict], line: str, case: Callable[[dict], str], value: str) -> list[dict]:
    """A row per `line`, a column per case: {line: ..., case: value or None, ...}."""
    found = {(row[line], case(row)): row[value] for row in rows}
    cases = _distinct(case(row) for row in rows)
    return [
        {line: name, **{c: found.get((name, c)) for c in cases}}
        for name in _distinct(row[line] for row in rows)
    ]


def by_product(rows: list[dict]) -> str:
    """For each product, the time of each way over that of a plain pass."""

    def case(row: dict) -> str:
        return f"{row['network'].split(',')[0]}, {row['probes']}"

    parts = []
    for product, name in PRODUCTS.items():
        mine = [row for row in rows if row["product"] == product]
        plain = pivot([row for row in mine if row["way"] == "plain"], "way", case, "ms")
        ways = pivot([row for row in mine if row["way"] != "plain"], "way", case, "over plain")
        table = markdown([{**plain[0], "way": "plain, ms"}, *ways])
        parts.append(f"{name}, over a plain pass, by network and number of probes:\n\n{table}")
    return "\n\n".join(parts)


def by_size(rows: list[dict]) -> str:
    """All about the operators at the largest size with one probe, then each size's speed."""

    def case(row: dict) -> str:
        return f"{row['MB']:.3g} MB, {row['probes']} probe" + "s" * (row["probes"] > 1)

    largest = max(row["MB"] for row in rows if row["probes"] == 1)
    at = [row for row in rows if row["probes"] == 1 and row["MB"] == largest]
    about = [{k: v for k, v in row.items() if k not in ("probes", "MB", "spread")} for row in at]
    parts = [f"{case(at[0])}:\n\n{markdown(about)}"]
    for peer in ("times eager", "times compiled"):
        parts.append(f"{peer}, at every size:\n\n{markdown(pivot(rows, 'kernel', case, peer))}")
    return "\n\n".join(parts)


def by_operator(rows: list[dict]) -> str:
    """The median share of a copy for each operator, dtype and format, and how many reach 0.9."""

    def of(row: dict) -> str:
        return f"{row['operator']}, {row['dtype']}, {row['format']}"

    large = [row for row in rows if row["MB"] > 8]
    table = []
    for name in _distinct(map(of, large)):
        line: dict[str, object] = {"operator": name}
        for batch in _distinct(row["batch"] for row in rows):
            shares = [r["of a copy"] for r in large if of(r) == name and r["batch"] == batch]
            reach = sum(share >= 0.9 for share in shares)
            text = f"{statistics.median(shares):.2f} ({reach}/{len(shares)})" if shares else None
            line[f"batch of {batch}"] = text
        table.append(line)
    return markdown(table)


def without_spread(rows: list[dict]) -> str:
    return markdown([{k: v for k, v in row.items() if k != "spread"} for row in rows])


# How a benchmark's rows are shown, where they are not shown as they are.
TABLES = {
    "calls": by_operator,
    "peers": without_spread,
    "ways": by_product,
    "dfv": by_product,
    "kernels": by_size,
}


def section(name: str, stem: str, found: dict) -> list[str]:
    """What one file of results has of a benchmark: how it was made, tables, a plot."""
    machine = ", ".join(f"{key} {value}" for key, value in found["machine"].items())
    command = "python -m benchmarks " + " ".join(found["command"])
    parts = [
        f"`{command}`, of which this took {found['seconds'][name]} s. Machine: {machine}.",
        TABLES.get(name, markdown)(found[name]),
    ]
    if name in PLOTS:
        title, plot = PLOTS[name]
        picture = PICTURES / f"{name}-{stem}.png"
        plot(found[name], picture)
        parts.append(f"![{title}]({picture.relative_to(PAGE.parent)})")
    return parts


def main() -> int:
    results = {file.stem: json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))}
    if not results:
        print(f"benchmarks: no results in {RESULTS}", file=sys.stderr)
        return 2
    parts = [WORDS["page"]]
    for name, words in WORDS.items():
        having = {stem: found for stem, found in results.items() if found.get(name)}
        if having:
            parts.append(words)
        for stem, found in having.items():
            parts += section(name, stem, found)
    partial = PAGE.with_suffix(".part")
    partial.write_text("\n\n".join(parts) + "\n")
    os.replace(partial, PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
