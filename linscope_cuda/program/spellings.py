"""Operators by another name: as one that does the same, of which more is known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .step import leaves, substituted
from .views import Untraceable

aten = torch.ops.aten

# What is given a list of indices.
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._unsafe_index_put}


def is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


# What says nothing of the memory that its results share with its argument.
_SAFE = {
    aten.unsafe_split.Tensor: aten.split.Tensor,
    aten.unsafe_split_with_sizes.default: aten.split_with_sizes.default,
}


def spelled(func: Any, kwargs: dict) -> tuple[Any, dict]:
    """An operator as one that does the same, of which more is known."""
    if func is aten.scatter.reduce and kwargs.get("reduce") == "add":
        return aten.scatter_add.default, {}
    if func is aten.scatter_.reduce and kwargs.get("reduce") == "add":
        return aten.scatter_add_.default, {}
    return _SAFE.get(func, func), kwargs


def result_dtype(function: Any, args: tuple, kwargs: dict) -> torch.dtype:
    """Of what a function gives, which may be wider than what its twin writes into."""
    dtypes = {t.dtype for t in leaves((args, kwargs)) if t.is_floating_point()}
    if len(dtypes) < 2:
        return args[0].dtype

    def shadow(t: Tensor) -> Tensor:
        return torch.empty(t.shape, dtype=t.dtype, device="meta")

    return function(*substituted(args, shadow), **substituted(kwargs, shadow)).dtype


_TWINS = {
    aten.transpose_.default: aten.transpose.int,
    aten.ldexp_.default: aten.ldexp.Tensor,
}


def twin(func) -> Any:
    """The operator that does the same without writing."""
    if func in _TWINS:
        return _TWINS[func]
    space, name = func._schema.name.split("::")
    packet = getattr(getattr(torch.ops, space), name.removesuffix("_"), None)
    twin = getattr(packet, func._schema.overload_name or "default", None)
    if twin is None or twin is func:
        raise Untraceable(f"{func} has no twin that does not write")
    return twin
