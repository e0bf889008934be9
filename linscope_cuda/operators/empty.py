"""Results without data, from which the fake of every operator is made (table/)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import reference


def empty(x: Tensor, shape: tuple, channels_last: bool, dtype: torch.dtype | None = None) -> Tensor:
    last = reference.memory_format(channels_last, len(shape))
    return torch.empty(shape, dtype=dtype or x.dtype, device=x.device, memory_format=last)


def like(x: Tensor) -> Tensor:
    """In x's own order."""
    return empty(x, tuple(x.shape), reference.is_channels_last(x))


def packed(x: Tensor, references: int, bits: int) -> Tensor:
    row_bytes = (math.prod(x.shape[1:]) * bits + 7) // 8
    return x.new_empty((references, row_bytes), dtype=torch.uint8)


def planes(x: Tensor, references: int) -> Tensor:
    """A number for each reference and channel."""
    return x.new_empty((references, x.shape[1]), dtype=reference.wide_dtype(x.dtype))
