"""Arguments held against a function's schema, before torch sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .step import Value

_NUMBERS = (int, float, bool, complex)

# By what torch calls a type, what is one.
_TYPES: dict[str, tuple[type, ...]] = {
    "TensorType": (Value, *_NUMBERS),  # a number for some functions: torch says itself for which
    "IntType": (int,),
    "SymIntType": (int,),
    "FloatType": (float, int),
    "NumberType": _NUMBERS,
    "BoolType": (bool,),
    "StringType": (str,),
    "ScalarTypeType": (torch.dtype,),
    "LayoutType": (torch.layout,),
    "DeviceObjType": (torch.device,),
    "MemoryFormatType": (torch.memory_format,),
}


def bound(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a call by their names, defaults among them; ValueError where the function's
    schema has no such arguments. What can be given by its place has to be.
    """
    arguments = function._schema.arguments
    placed = [a.name for a in arguments if not a.kwarg_only]
    if len(args) > len(placed) or not kwargs.keys().isdisjoint(placed):
        raise ValueError(f"{function} has arguments in other places than its own")
    given = dict(zip(placed, args, strict=False)) | kwargs
    if unknown := given.keys() - {a.name for a in arguments}:
        raise ValueError(f"{function} has no argument {min(unknown)!r:.60}")
    for a in arguments:
        if a.name not in given and not a.has_default_value():
            raise ValueError(f"{function} lacks its argument {a.name!r}")
        if a.name in given and not _fits(a.real_type, given[a.name]):
            what = f"{given[a.name]!r:.60}".partition("\n")[0]
            raise ValueError(f"{function} wants {a.name} as {a.real_type}, was given {what}")
    return {a.name: given.get(a.name, a.default_value) for a in arguments}


def _fits(kind: Any, value: Any) -> bool:
    name = kind.kind()
    if name == "OptionalType":
        return value is None or _fits(kind.getElementType(), value)
    if name == "ListType":
        return isinstance(value, list | tuple) and all(
            _fits(kind.getElementType(), v) for v in value
        )
    if isinstance(value, Tensor):
        return name == "TensorType"
    return type(value) in _TYPES.get(name, ())
