"""A batch of samples: its order in memory, its references, the dtype that it is computed in."""

from __future__ import annotations

import torch
from torch import Tensor


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """What a dtype is computed in: float64, or float32 for all others."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def is_channels_last(x: Tensor) -> bool:
    """Strides of (n, *spatial, c) on a shape (n, c, *spatial), which torch has for 2 and 3 spatial
    dimensions; contiguous as well counts as contiguous.
    """
    if x.dim() not in (4, 5) or x.is_contiguous():
        return False
    stride, last = 1, True
    for d in (1, *range(x.dim() - 1, 1, -1), 0):
        last = last and (x.shape[d] == 1 or x.stride(d) == stride)
        stride *= x.shape[d]
    return last


def is_dense(x: Tensor, channels_last: bool) -> bool:
    """Whether x lies in memory without gaps in that order."""
    return is_channels_last(x) if channels_last else x.is_contiguous()


def memory_format(channels_last: bool, dims: int = 4) -> torch.memory_format:
    """Torch's name of that order, for tensors of `dims` dimensions."""
    if not channels_last:
        return torch.contiguous_format
    return torch.channels_last_3d if dims == 5 else torch.channels_last


def dense(x: Tensor, channels_last: bool) -> Tensor:
    """x without gaps in memory, in that order."""
    return x.contiguous(memory_format=memory_format(channels_last, x.dim()))


def by_reference(x: Tensor, references: int) -> Tensor:
    """(samples, ...) -> (samples / references, references, ...), reference samples first."""
    return x.reshape(x.shape[0] // references, references, *x.shape[1:])
