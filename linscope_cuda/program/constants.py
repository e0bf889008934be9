"""Constant tensors as bytes of their storages, each stored once, and where they lie in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..files import fields, of_kind
from .views import Geometry, shown

_KINDS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex128)
_KINDS += (torch.complex64, torch.complex32, torch.int64, torch.int32, torch.int16, torch.int8)
_KINDS += (torch.uint8, torch.bool)
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in _KINDS}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

_PLACE = {"storage": int, "shape": list, "stride": list, "offset": int, "dtype": str}
# Which product of matrices torch takes depends on whether a factor requires grad.
_PLACE |= {"conjugate": bool, "negative": bool, "requires_grad": bool}

# Kernels round otherwise where memory starts otherwise: it starts as it did, modulo this.
_ALIGNED = 64


def packed(tensors: list[Tensor]) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Where each tensor lies, and by name the bytes of storages that they need.

    ValueError for a tensor that does not lie in memory by strides.
    """
    ends: dict[int, tuple[int, int]] = {}
    storages: dict[int, torch.UntypedStorage] = {}
    for t in tensors:
        if t.layout != torch.strided or t._is_zerotensor() or t.dtype not in _NAMES:
            raise ValueError(f"a constant of {t.dtype} and {t.layout} has no place in a file")
        low, high = _bytes(_placed(t))
        storage = t.untyped_storage()
        first, last = ends.get(storage._cdata, (low, high))
        ends[storage._cdata] = min(low // _ALIGNED * _ALIGNED, first), max(high, last)
        storages[storage._cdata] = storage
    content = {
        f"storage.{i}": _row_of_bytes(storages[key], *ends[key]) for i, key in enumerate(ends)
    }
    numbers = {key: i for i, key in enumerate(ends)}
    places = []
    for t in tensors:
        key, at = t.untyped_storage()._cdata, _placed(t)
        offset = at.offset - ends[key][0] // t.itemsize if t.numel() else 0
        said = at._asdict() | {"offset": offset, "dtype": _NAMES[t.dtype]}
        places.append({"storage": numbers[key], **said, "requires_grad": t.requires_grad})
    return places, content


def _row_of_bytes(storage: torch.UntypedStorage, start: int, end: int) -> Tensor:
    empty = torch.empty(0, dtype=torch.uint8, device=storage.device)
    return empty.set_(storage, start, (end - start,))  # pyright: ignore[reportCallIssue]


@torch.no_grad()
def unpacked(
    places: list[Any], content: Mapping[str, Tensor], device: torch.device
) -> list[Tensor]:
    """The tensors again, in memory that they share as before; ValueError for what is no place in
    the content.
    """
    storages = {name: t.to(device) for name, t in content.items()}
    return [_unpacked(f"constant {i}", at, storages, device) for i, at in enumerate(places)]


def _unpacked(what: str, given: Any, storages: dict[str, Tensor], device: torch.device) -> Tensor:
    said = fields(what, given, _PLACE)
    name = f"storage.{said['storage']}"
    if name not in storages:
        raise ValueError(f"{what} lies in {name}, which is not there")
    if said["dtype"] not in DTYPES:
        raise ValueError(f"{what} is of the unknown dtype {said['dtype']!r:.40}")
    dtype, storage = DTYPES[said["dtype"]], storages[name]
    conjugate, negative = said["conjugate"], said["negative"]
    shape = sizes(f"the shape of {what}", said["shape"])
    stride = sizes(f"the stride of {what}", said["stride"])
    at = Geometry(shape, stride, said["offset"], dtype, conjugate, negative)
    if storage.dtype != torch.uint8 or storage.dim() != 1:
        raise ValueError(f"{name} is no row of bytes")
    if len(at.shape) != len(at.stride) or at.offset < 0 or _bytes(at)[1] > len(storage):
        raise ValueError(f"{what} goes beyond its storage of {len(storage)} bytes")
    t = shown(storage.untyped_storage(), at, device)
    if (t.is_conj(), t.is_neg()) != (at.conjugate, at.negative):
        raise ValueError(f"{what} of {at.dtype} cannot be a conjugate")
    return t.requires_grad_(said["requires_grad"])


def sizes(what: str, given: Any) -> tuple[int, ...]:
    """A list of whole numbers that are not negative; ValueError for another."""
    of_kind(what, given, list)
    if not all(type(n) is int and 0 <= n < 2**63 for n in given):
        raise ValueError(f"{what} must be whole numbers from 0, was given {given!r:.60}")
    return tuple(given)


def _placed(t: Tensor) -> Geometry:
    """Where a tensor lies, its strides as they are."""
    shape, offset = tuple(t.shape), int(t.storage_offset()) if t.numel() else 0
    return Geometry(shape, t.stride(), offset, t.dtype, t.is_conj(), t.is_neg())


def _bytes(at: Geometry) -> tuple[int, int]:
    """The first byte of a place, and the one after its last."""
    low = high = at.offset
    if 0 not in at.shape:
        high += sum((n - 1) * step for n, step in zip(at.shape, at.stride, strict=False)) + 1
    return low * at.dtype.itemsize, high * at.dtype.itemsize
