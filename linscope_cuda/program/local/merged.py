"""Steps between reshapes that belong together, as one step each: between them, places are a row.

A matrix product along the last dimension of a picture flattens its places; what takes entries by
their numbers (pools of three dimensions, adaptive ones) does so, too. As one step they stay local.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..line import Line
from ..step import Step, Value

aten = torch.ops.aten


def along_last(x: Tensor, matrix: Tensor) -> Tensor:
    """x @ matrix, along the last of any number of dimensions."""
    return x @ matrix


def taken(x: Tensor, numbers: Tensor, shape: list[int]) -> Tensor:
    """Of each channel of a picture (1, channels, *places) the entries of these numbers, (1,
    channels, entries), in a shape.
    """
    return x.flatten(2).gather(2, numbers).view(shape)


def placed(u: Tensor, numbers: Tensor, shape: list[int]) -> Tensor:
    """Its transpose: entries added up at their numbers, in a picture of a shape."""
    x = u.new_zeros(*u.shape[:2], prod(shape[2:]))
    return x.scatter_add(2, numbers, u.flatten(2)).view(shape)


def merged(line: Line) -> Line:
    """The line with such steps as one."""
    makers = {s.output.number: s for s in line.steps if s.single}
    steps = []
    for step in line.steps:
        inner = _maker(makers, step) if step.function is aten.reshape.default else None
        found = None if inner is None else _merged(makers, inner, step.output)
        if found is not None:
            step = replace(step, function=found[0], args=found[1], kwargs={})
        steps.append(step)
    return Line(line.input, steps, line.output)


def _maker(makers: dict[int, Step], step: Step, at: int = 0) -> Step | None:
    """The step that makes an argument."""
    if not step.args or not isinstance(step.args[at], Value):
        return None
    return makers.get(step.args[at].number)


def _merged(makers: dict[int, Step], inner: Step, out: Value) -> tuple[Any, tuple] | None:
    """The function and arguments of a step between two reshapes, of which `out` is the last."""
    at = 3 if inner.function is aten.scatter_add.default else 0
    outer = _maker(makers, inner, at) if len(inner.args) > at else None
    if outer is None or outer.function is not aten.reshape.default:
        return None
    x = outer.args[0]
    if not isinstance(x, Value):
        return None
    if inner.function in (aten.mm.default, aten.bmm.default):
        matrix = _one_matrix(inner.args[1])
        rows, kept = inner.args[0], x.shape[:-1] == out.shape[:-1]
        kept = kept and matrix is not None and x.shape[-1] == rows.shape[-1]
        return (along_last, (x, matrix)) if kept else None
    if inner.function is aten.gather.default:
        row, dim, numbers = inner.args[:3]
        rows = _is_row(x, row, dim) and _is_row(out, inner.output, dim)
        return (taken, (x, numbers, list(out.shape))) if rows else None
    if inner.function is aten.scatter_add.default:
        _, dim, numbers, row = inner.args
        rows = _is_row(x, row, dim) and _is_row(out, inner.output, dim)
        return (placed, (x, numbers, list(out.shape))) if rows else None
    return None


def _one_matrix(factor: Any) -> Any:
    """A factor of rows; None for matrices that are not all the same."""
    if len(factor.shape) == 2:
        return factor
    same = isinstance(factor, Tensor) and factor.stride(0) == 0
    return factor[0] if same else None


def _is_row(picture: Value, row: Value, dim: int) -> bool:
    """Whether a value is a picture whose places are the last dimension of three."""
    shape = picture.shape
    flat = (*shape[:2], prod(shape[2:]))
    return len(shape) > 3 and row.shape == flat and dim % 3 == 2
