"""Decisions of composed rules as they lie on the tape: bits, small integers, values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checking import beyond, mismatch, outside
from .entry import Decision

_SMALL = (torch.uint8, torch.int16, torch.int32)


def pack(value: Tensor | tuple[Tensor, ...]) -> Decision:
    """A decision, as small as it is exact."""
    decision: Decision = {"parts": len(value) if isinstance(value, tuple) else 0}
    for i, part in enumerate(value if isinstance(value, tuple) else (value,)):
        if part.dtype == torch.bool:
            decision[f"bits{i}"], decision[f"shape{i}"] = _bits(part), list(part.shape)
        else:
            exact = part.is_floating_point() or part.is_complex()
            decision[f"value{i}"] = part.clone() if exact else _small(part)
    return decision


def unpack(decision: Decision) -> Tensor | tuple[Tensor, ...]:
    """The decision that was packed."""
    values = tuple(_part(decision, i) for i in range(decision["parts"] or 1))
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
    return not value.is_floating_point() and not value.is_complex()


def _part(decision: Decision, i: int) -> Tensor:
    if f"bits{i}" not in decision:
        value = decision[f"value{i}"]
        return value.long() if _is_whole(value) else value
    bits, shape = decision[f"bits{i}"], decision[f"shape{i}"]
    each = bits[:, None] >> torch.arange(8, dtype=torch.uint8, device=bits.device) & 1
    return each.flatten()[: torch.Size(shape).numel()].bool().reshape(shape)


def _bits(mask: Tensor) -> Tensor:
    flat = mask.reshape(-1).to(torch.uint8)
    eights = F.pad(flat, (0, -len(flat) % 8)).unflatten(0, (-1, 8))
    weights = 1 << torch.arange(8, dtype=torch.uint8, device=mask.device)
    return (eights * weights).sum(1, dtype=torch.uint8)


def _small(indices: Tensor) -> Tensor:
    top = int(indices.max()) if indices.numel() else 0
    low = int(indices.min()) if indices.numel() else 0
    fitting = (d for d in _SMALL if torch.iinfo(d).min <= low and top <= torch.iinfo(d).max)
    return indices.to(next(fitting, torch.int64))
