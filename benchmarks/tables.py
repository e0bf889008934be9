"""Rows of equal keys as text: aligned for a terminal, or in Markdown."""

from __future__ import annotations


def aligned(rows: list[dict]) -> str:
    lines = _cells(rows) if rows else []
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(t.rjust(w) for t, w in zip(line, widths, strict=True)) for line in lines
    )


def markdown(rows: list[dict]) -> str:
    head, *lines = _cells(rows)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines))


def _cells(rows: list[dict]) -> list[list[str]]:
    return [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]


def _text(value: object) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)
