"""Views: where tensors lie in a storage, and what shows one tensor as a function of another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

aten = torch.ops.aten


class Untraceable(NotImplementedError):
    """An operator that cannot be written as a function of values; the message names it."""


class Geometry(NamedTuple):
    """Where a tensor lies in its storage."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    conjugate: bool  # what lies there is read as its conjugate
    negative: bool


@dataclass
class View:
    """A tensor as a function of another one of the same storage."""

    parent: Geometry
    function: Any  # None: no function is known, it takes entries from their places
    args: tuple


def geometry(t: Tensor) -> Geometry:
    # The stride of a single entry says nothing, and differs between equal views.
    shape, stride = tuple(t.shape), t.stride()
    if 1 in shape:
        stride = tuple([0 if n == 1 else step for n, step in zip(shape, stride, strict=True)])
    return Geometry(shape, stride, int(t.storage_offset()), t.dtype, t.is_conj(), t.is_neg())


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
        if func in _PHYSICAL:
            func = _PHYSICAL[func]
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


# Views that leave it to their readers to conjugate or negate: in a line it is done at once.
_PHYSICAL = {
    aten._conj.default: aten._conj_physical.default,
    aten._neg_view.default: aten.neg.default,
}


def _occupied(t: Tensor) -> tuple:
    """Where a tensor's entries lie, in their order."""
    return t.storage_offset(), [
        (n, step) for n, step in zip(t.shape, t.stride(), strict=True) if n != 1
    ]


def places(parent: Geometry, at: Geometry) -> Tensor:
    """Which entries of the flattened parent lie where `at` says."""
    size = torch.Size(parent.shape).numel()
    if parent[3:] != at[3:]:
        raise Untraceable(f"{at} has no place in {parent}")
    numbers = torch.empty_strided(parent.shape, parent.stride, dtype=torch.int64)
    numbers.copy_(torch.arange(size).reshape(parent.shape))
    return numbers.as_strided(at.shape, at.stride, at.offset - parent.offset).clone()


def shown(storage: torch.UntypedStorage, at: Geometry, device: torch.device) -> Tensor:
    """The tensor that lies at a place."""
    empty = torch.empty(0, dtype=at.dtype, device=device)
    t = empty.set_(storage, at.offset, at.shape, at.stride)  # pyright: ignore[reportCallIssue]
    t = t.conj() if at.conjugate else t
    return aten._neg_view.default(t) if at.negative else t


def _inverse(order: list[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)


def _swapped(dims: int, a: int, b: int) -> list[int]:
    order = list(range(dims))
    if dims:
        order[a], order[b] = order[b], order[a]
    return order


# What writes into a view of a tensor, as a function of the tensor.
SCATTERS = {
    aten.slice.Tensor: aten.slice_scatter.default,
    aten.select.int: aten.select_scatter.default,
    aten.diagonal.default: aten.diagonal_scatter.default,
}
# What shows a tensor entry by entry as something else, and what shows that as the tensor again.
INVERSES = {
    aten._conj_physical.default: aten._conj_physical.default,
    aten.neg.default: aten.neg.default,
    aten.view_as_real.default: aten.view_as_complex.default,
    aten.view_as_complex.default: aten.view_as_real.default,
}
ORDERS = {
    aten.permute.default: lambda dims, order: _inverse([d % dims for d in order]),
    aten.transpose.int: _swapped,
    aten.t.default: lambda dims: list(range(dims))[::-1],
}
RESHAPES = {
    aten.reshape.default,
    aten.view.default,
    aten._unsafe_view.default,
    aten._reshape_alias.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
}
