"""A line as a table that people read: a row for each step."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from .line import Line
from .linear_part import affine_of
from .live import Live
from .step import Step, Value

_HEADER = ("value", "function", "sample", "of", "adds", "call")


def table(line: Line) -> str:
    """A row for each step: its value, function and shape, what it is a function of, whether it adds
    a c of its own, and the network's call that it belongs to.
    """
    rows = [_HEADER, *_rows(line)]
    wide = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
    lines = ["  ".join(t.ljust(w) for t, w in zip(row, wide, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, f"{len(line.steps)} steps from {line.input} to {line.output}"])


def columns(line: Line) -> dict[str, list[str]]:
    """The same, by columns."""
    cells = list(zip(*_rows(line), strict=True)) or [()] * len(_HEADER)
    return {name: list(column) for name, column in zip(_HEADER, cells, strict=True)}


def _rows(line: Line) -> Iterator[tuple[str, ...]]:
    live = Live(line)
    return ((*_row(s), _adds(s, live), s.label) for s in line.steps)


def _row(step: Step) -> tuple[str, str, str, str]:
    first = step.outputs[0] or step.output
    function = str(step.function).removesuffix(".default")
    return str(first), function, _shape(first), ", ".join(map(_operand, step.operands))


def _adds(step: Step, live: Live) -> str:
    return "c" if affine_of(step, live) is not None else ""


def _operand(v: Value | Tensor) -> str:
    return str(v) if isinstance(v, Value) else f"[{_shape(v)}]"


def _shape(v: Value | Tensor) -> str:
    return "x".join(map(str, v.shape)) or "1"
