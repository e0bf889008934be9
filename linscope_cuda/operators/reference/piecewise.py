"""Piecewise-linear units: decisions of 1 or 2 bits, packed in the order of memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .layout import by_reference, dense, wide_dtype


def pack(pieces: Tensor, bits: int, channels_last: bool) -> Tensor:
    """(references, ...) small numbers -> (references, bytes) uint8, lowest bits first."""
    rows = (pieces.movedim(1, -1) if channels_last else pieces).reshape(pieces.shape[0], -1)
    per_byte = 8 // bits
    rows = torch.nn.functional.pad(rows.to(torch.uint8), (0, -rows.shape[1] % per_byte))
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=pieces.device)
    shifted = rows.reshape(pieces.shape[0], rows.shape[1] // per_byte, per_byte) << shifts
    return shifted.sum(-1, dtype=torch.uint8)


def unpack(decision: Tensor, bits: int, shape: tuple[int, ...], channels_last: bool) -> Tensor:
    """The pieces of `pack`, for samples of `shape`."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=decision.device)
    rows = (decision.unsqueeze(-1) >> shifts) & (2**bits - 1)
    rows = rows.reshape(decision.shape[0], -1)[:, : math.prod(shape)]
    if not channels_last:
        return rows.reshape(decision.shape[0], *shape)
    return rows.reshape(decision.shape[0], *shape[1:], shape[0]).movedim(-1, 1)


def relu_apply(open: Tensor, x: Tensor, negative_slope: float) -> Tensor:
    """x where `open`, `negative_slope` times x elsewhere."""
    # A select: multiplying by a mask would turn an infinite probe into NaN.
    return torch.where(open, x, negative_slope * x if negative_slope else torch.zeros_like(x))


def relu_scope(
    x: Tensor, references: int, negative_slope: float, channels_last: bool
) -> tuple[Tensor, Tensor]:
    """y = [h(x0), A(x0) x1] and which of x0's entries are open, 1 bit each."""
    open = ~(x[:references] <= 0)  # NaN is open: it passes, as in torch
    y = relu_apply(open, by_reference(x, references), negative_slope).reshape(x.shape)
    return dense(y, channels_last), pack(open, 1, channels_last)


def relu_frozen(x: Tensor, decision: Tensor, negative_slope: float, channels_last: bool) -> Tensor:
    """A x for a recorded decision."""
    open = unpack(decision, 1, tuple(x.shape[1:]), channels_last).bool()
    y = relu_apply(open, by_reference(x, decision.shape[0]), negative_slope).reshape(x.shape)
    return dense(y, channels_last)


def relu_frozen_(x: Tensor, decision: Tensor, negative_slope: float, channels_last: bool) -> None:
    """`relu_frozen`, in place."""
    x.copy_(relu_frozen(x, decision, negative_slope, channels_last))


def _bounds(x: Tensor, min: float, max: float) -> tuple[Tensor, Tensor]:
    """As computed with: infinite where they are beyond the dtype, not torch's default one."""
    double = torch.tensor([min, max], dtype=torch.float64, device=x.device)
    low, high = double.to(wide_dtype(x.dtype))
    return low, high


def clamp_apply(piece: Tensor, x: Tensor, min: float, max: float) -> Tensor:
    """x where `piece` is 1, the lower bound where it is 0, the upper where it is 2."""
    saturated = torch.where(piece == 0, *_bounds(x, min, max)).to(x.dtype)
    return torch.where(piece == 1, x, saturated)


def clamp_scope(
    x: Tensor, references: int, min: float, max: float, channels_last: bool
) -> tuple[Tensor, Tensor]:
    """y = [h(x0), A(x0) x1 + c(x0)] and each entry's piece, 2 bits."""
    x0 = x[:references].to(wide_dtype(x.dtype))
    low, high = _bounds(x, min, max)
    piece = torch.where(x0 <= low, 0, torch.where(x0 >= high, 2, 1))
    y = clamp_apply(piece, by_reference(x, references), min, max).reshape(x.shape)
    return dense(y, channels_last), pack(piece, 2, channels_last)


def clamp_frozen(
    x: Tensor, decision: Tensor, min: float, max: float, channels_last: bool
) -> Tensor:
    """A x + c for a recorded decision."""
    piece = unpack(decision, 2, tuple(x.shape[1:]), channels_last)
    y = clamp_apply(piece, by_reference(x, decision.shape[0]), min, max).reshape(x.shape)
    return dense(y, channels_last)


def clamp_frozen_(x: Tensor, decision: Tensor, min: float, max: float, channels_last: bool) -> None:
    """`clamp_frozen`, in place."""
    x.copy_(clamp_frozen(x, decision, min, max, channels_last))
