"""Views: where tensors lie in a storage, and what shows one tensor as a function of another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

aten = torch.ops.aten


class Geometry(NamedTuple):
    """Where a tensor lies in its storage."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype


@dataclass
class View:
    """A tensor as a function of another one of the same storage."""

    parent: Geometry
    function: Any  # None: no function is known, it takes entries from their places
    args: tuple


def geometry(t: Tensor) -> Geometry:
    return Geometry(tuple(t.shape), tuple(t.stride()), int(t.storage_offset()), t.dtype)


def each_view(func, args, kwargs, result) -> Iterator[tuple[Tensor, Any, tuple]]:
    """The views that a function returns, each with a function of one result and its arguments."""
    bound = list(args[1:])
    for a in func._schema.arguments[len(args) :]:
        if not a.kwarg_only:
            bound.append(kwargs.get(a.name, a.default_value))
    if not isinstance(result, tuple | list):
        if func is aten.as_strided.default:
            like = _occupied(args[0]) == _occupied(result)
            function, rest = (aten.view.default, (list(result.shape),)) if like else (None, ())
            yield result, function, rest
            return
        if func is aten.slice.Tensor:
            dim, *ends = bound
            bound = [dim, *slice(*ends).indices(args[0].shape[dim])]
        yield result, func, tuple(bound)
        return
    dim = bound[-1] % args[0].dim()
    start = 0
    for i, t in enumerate(result):
        if func is aten.unbind.int:
            yield t, aten.select.int, (dim, i)
            continue
        length = t.shape[dim]
        yield t, aten.slice.Tensor, (dim, start, start + length)
        start += length


def _occupied(t: Tensor) -> tuple:
    """Where a tensor's entries lie, in their order."""
    return t.storage_offset(), [
        (n, step) for n, step in zip(t.shape, t.stride(), strict=True) if n != 1
    ]


def places(parent: Geometry, at: Geometry) -> Tensor:
    """Which entries of the flattened parent lie where `at` says."""
    size = torch.Size(parent.shape).numel()
    numbers = torch.empty_strided(parent.shape, parent.stride, dtype=torch.int64)
    numbers.copy_(torch.arange(size).reshape(parent.shape))
    return numbers.as_strided(at.shape, at.stride, at.offset - parent.offset).clone()


def _inverse(order: list[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)


def _swapped(dims: int, a: int, b: int) -> list[int]:
    order = list(range(dims))
    order[a], order[b] = order[b], order[a]
    return order


# What writes into a view of a tensor, as a function of the tensor.
SCATTERS = {
    aten.slice.Tensor: aten.slice_scatter.default,
    aten.select.int: aten.select_scatter.default,
    aten.diagonal.default: aten.diagonal_scatter.default,
}
ORDERS = {
    aten.permute.default: lambda dims, order: _inverse([d % dims for d in order]),
    aten.transpose.int: _swapped,
    aten.t.default: lambda dims: list(range(dims))[::-1],
}
RESHAPES = {
    aten.view.default,
    aten._unsafe_view.default,
    aten._reshape_alias.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
}
