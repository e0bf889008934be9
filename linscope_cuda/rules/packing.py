"""Decisions of composed rules as they lie on the tape: bits, small integers, values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checking import beyond, mismatch, outside
from .entry import Decision, UnscopedOperation

_SMALL = (torch.uint8, torch.int16, torch.int32)


def pack(value: Tensor | tuple[Tensor, ...], references: int) -> Decision:
    """A decision for `references` entries, as small as it is exact."""
    decision: Decision = {"parts": len(value) if isinstance(value, tuple) else 0}
    for i, part in enumerate(value if isinstance(value, tuple) else (value,)):
        if part.dim() == 0 or len(part) != references:
            raise UnscopedOperation(
                f"what it decides has shape {tuple(part.shape)}, where {references} entries must "
                "stay apart in the first dimension"
            )
        if part.dtype == torch.bool:
            decision[f"bits{i}"], decision[f"shape{i}"] = _bits(part), list(part.shape[1:])
        else:
            decision[f"value{i}"] = part.clone() if part.is_floating_point() else _small(part)
    return decision


def unpack(decision: Decision, entries: int) -> Tensor | tuple[Tensor, ...]:
    """The decision for `entries` entries, a multiple of those it was taken for."""
    values = tuple(_for_all(_part(decision, i), entries) for i in range(decision["parts"] or 1))
    return values if decision["parts"] else values[0]


def fault(given: Decision, taken: Decision, size: int | None) -> str | None:
    """What is wrong with a decision of a file, beside the one `taken` anew; None if nothing is.

    Whole numbers are 0 to `size` - 1, or, where that is not known, none outside of those taken.
    """
    if wrong := mismatch(given, taken, any_width=True):
        return wrong
    whole = [name for name, t in given.items() if name.startswith("value") and _is_whole(t)]
    if size is None:
        return beyond({k: given[k] for k in whole}, {k: taken[k] for k in whole})
    return next(filter(None, (outside(k, given[k], 0, size - 1) for k in whole)), None)


def _is_whole(value: Tensor) -> bool:
    return not value.is_floating_point()


def _part(decision: Decision, i: int) -> Tensor:
    if f"bits{i}" not in decision:
        value = decision[f"value{i}"]
        return value if value.is_floating_point() else value.long()
    bits, shape = decision[f"bits{i}"], decision[f"shape{i}"]
    each = bits[..., None] >> torch.arange(8, dtype=torch.uint8, device=bits.device) & 1
    size = torch.Size(shape).numel()
    return each.flatten(1)[:, :size].bool().reshape(len(bits), *shape)


def _bits(mask: Tensor) -> Tensor:
    flat = mask.reshape(len(mask), -1).to(torch.uint8)
    eights = F.pad(flat, (0, -flat.shape[1] % 8)).unflatten(1, (-1, 8))
    weights = 1 << torch.arange(8, dtype=torch.uint8, device=mask.device)
    return (eights * weights).sum(2, dtype=torch.uint8)


def _small(indices: Tensor) -> Tensor:
    top = int(indices.max()) if indices.numel() else 0
    low = int(indices.min()) if indices.numel() else 0
    fitting = (d for d in _SMALL if torch.iinfo(d).min <= low and top <= torch.iinfo(d).max)
    return indices.to(next(fitting, torch.int64))


def _for_all(value: Tensor, entries: int) -> Tensor:
    if len(value) == 1:
        return value.expand(entries, *value.shape[1:])
    return value.repeat(entries // len(value), *[1] * (value.dim() - 1))
