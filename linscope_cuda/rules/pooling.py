"""Pools beside max_pool2d, and the selections of an extreme along a dimension."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .entry import Places, UnscopedOperation


def _no_indices(return_indices: bool) -> None:
    if return_indices:
        raise UnscopedOperation("pooling with return_indices has no rule")


def _spread(value, dims: int) -> list:
    values = list(value) if isinstance(value, tuple | list) else [value]
    return values * dims if len(values) == 1 else values


def max_pool1d(
    freeze,
    input,
    kernel_size,
    stride=None,
    padding=0,
    dilation=1,
    ceil_mode=False,
    return_indices=False,
):
    _no_indices(return_indices)
    k, s, p, d = (_spread(v, 1)[0] for v in (kernel_size, stride or kernel_size, padding, dilation))
    image = input.unsqueeze(-2)
    return F.max_pool2d(image, (1, k), (1, s), (0, p), (1, d), ceil_mode).squeeze(-2)


def max_pool3d(
    freeze,
    input,
    kernel_size,
    stride=None,
    padding=0,
    dilation=1,
    ceil_mode=False,
    return_indices=False,
):
    """Over height and width of each slice, then over depth: the same winners, also of ties."""
    _no_indices(return_indices)
    k, s, p, d = (_spread(v, 3) for v in (kernel_size, stride or kernel_size, padding, dilation))
    slices = input.flatten(1, 2)
    slices = F.max_pool2d(slices, k[1:], s[1:], p[1:], d[1:], ceil_mode)
    height, width = slices.shape[2:]
    columns = slices.unflatten(1, input.shape[1:3]).flatten(3)
    columns = F.max_pool2d(columns, (k[0], 1), (s[0], 1), (p[0], 0), (d[0], 1), ceil_mode)
    return columns.unflatten(3, (height, width))


class AdaptiveMaxPool:
    """Gathers the reference's winners; `pool` is torch's, with indices into the flat image."""

    def __init__(self, pool: Callable, dims: int):
        self.pool = pool
        self.dims = dims

    def __call__(self, freeze, input, output_size, return_indices=False):
        _no_indices(return_indices)
        flat = input.flatten(-self.dims)
        decide = Places(lambda x: self.pool(x, output_size, return_indices=True)[1], flat.shape[-1])
        winners = freeze(decide, input)
        y = flat.gather(-1, winners.flatten(-self.dims))
        return y.unflatten(-1, winners.shape[-self.dims :])


def lp_pool1d(freeze, input, norm_type, kernel_size, stride=None, ceil_mode=False):
    k, s = (_spread(v, 1)[0] for v in (kernel_size, stride or kernel_size))
    image = input.unsqueeze(-2)
    return F.lp_pool2d(image, norm_type, (1, k), (1, s), ceil_mode).squeeze(-2)


def lp_pool2d(freeze, input, norm_type, kernel_size, stride=None, ceil_mode=False):
    """The p-norm of a window as a sum with the reference's weights, x0^(p-1) / y0^(p-1)."""
    return _lp_pool(freeze, input, norm_type, kernel_size, stride, ceil_mode, 2)


def lp_pool3d(freeze, input, norm_type, kernel_size, stride=None, ceil_mode=False):
    return _lp_pool(freeze, input, norm_type, kernel_size, stride, ceil_mode, 3)


def _lp_pool(freeze, input, p, kernel_size, stride, ceil_mode, dims):
    average = (F.avg_pool2d, F.avg_pool3d)[dims - 2]
    size = 1
    for k in _spread(kernel_size, dims):
        size *= k

    def powers(x: Tensor) -> Tensor:
        return average(x.pow(p), kernel_size, stride, 0, ceil_mode)

    def scale(x: Tensor) -> Tensor:
        mean = powers(x)
        root = (mean.sign() * mean.abs().relu() * size).pow(1 / p)  # torch's own way
        return torch.where(mean == 0, 0, root / mean)

    weighted = input * freeze(lambda x: x.pow(p - 1), input)
    return average(weighted, kernel_size, stride, 0, ceil_mode) * freeze(scale, input)


class Selection:
    """Entries that the reference's values choose along a dimension: max, median, sort, topk ...

    `function` is torch's; it takes the dimension at position `dim_at` and returns (values,
    indices). `pairwise` is what it does with two tensors.
    """

    def __init__(
        self,
        function: Callable,
        dim_at: int = 1,
        default: int | None = None,
        pairwise: Callable | None = None,
    ):
        self.function = function
        self.dim_at = dim_at
        self.default = default
        self.pairwise = pairwise

    def __call__(self, freeze, input, *args, **kwargs):
        given = [*args, *kwargs.values()]
        if self.pairwise and given and isinstance(given[0], Tensor):
            return self.pairwise(input, given[0])
        at = self.dim_at - 1
        dim = kwargs.get("dim", args[at] if at < len(args) else self.default)
        if dim is None or input.dim() == 0 or dim % input.dim() == 0:
            raise UnscopedOperation("it chooses among the samples of a batch; name another dim")
        decide = Places(lambda x: self.function(x, *args, **kwargs)[1], input.shape[dim])
        indices = freeze(decide, input)
        kept = indices if indices.dim() == input.dim() else indices.unsqueeze(dim)
        values = input.gather(dim, kept)
        values = values if kept is indices else values.squeeze(dim)
        return getattr(torch.return_types, self.function.__name__)((values, indices))


def amax(freeze, input, dim=(), keepdim=False):
    return _extreme(freeze, torch.argmax, input, dim, keepdim)


def amin(freeze, input, dim=(), keepdim=False):
    return _extreme(freeze, torch.argmin, input, dim, keepdim)


def nansum(freeze, input, dim=None, keepdim=False, *, dtype=None):
    return torch.where(freeze(torch.isnan, input), 0, input).sum(dim, keepdim, dtype=dtype)


def _extreme(freeze, winner: Callable, input: Tensor, dim, keepdim: bool) -> Tensor:
    given = [dim] if isinstance(dim, int) else dim
    dims = sorted(d % input.dim() for d in given) if input.dim() else []
    if not dims or dims[0] == 0:
        raise UnscopedOperation("it chooses among the samples of a batch; name other dims")
    last = tuple(range(-len(dims), 0))
    flat = input.movedim(dims, last).flatten(-len(dims))
    decide = Places(lambda x: winner(x, -1, keepdim=True), flat.shape[-1])
    y = flat.gather(-1, freeze(decide, flat)).squeeze(-1)
    for d in dims if keepdim else ():
        y = y.unsqueeze(d)
    return y
