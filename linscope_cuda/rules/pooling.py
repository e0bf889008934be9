"""Pools beside max_pool2d, and the selections of an extreme along a dimension."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .choices import (
    Order,
    Places,
    Pooled,
    Shares,
    Standing,
    Window,
    Winner,
    adaptive,
    strided,
)


def _spread(value, dims: int) -> list:
    values = list(value) if isinstance(value, tuple | list) else [value]
    return values * dims if len(values) == 1 else values


class MaxPool:
    """Max pooling over 1 or 3 dimensions, and over 2 with its indices, which are a decision.

    `pool` is torch's, that returns both.
    """

    def __init__(self, pool: Callable, dims: int, with_indices: bool = False):
        self.pool, self.dims, self.with_indices = pool, dims, with_indices

    def __call__(
        self,
        freeze,
        input,
        kernel_size,
        stride=None,
        padding=0,
        dilation=1,
        ceil_mode=False,
        return_indices=False,
    ):
        window = kernel_size, stride or kernel_size, padding, dilation
        if return_indices or self.with_indices or input.dim() == self.dims + 1:
            return self._gathered(freeze, input, *window, ceil_mode, return_indices)
        return (_max_pool1d if self.dims == 1 else _max_pool3d)(input, *window, ceil_mode)

    def _gathered(self, freeze, input, kernel, stride, padding, dilation, ceil_mode, indices):
        def winners(x: Tensor) -> Tensor:
            return self.pool(x, kernel, stride, padding, dilation, ceil_mode)[1]

        taps = strided(*(_spread(v, self.dims) for v in (kernel, stride, padding, dilation)))
        y, at = gathered(freeze, input, winners, taps)
        return (y, at) if indices or self.with_indices else y


def gathered(
    freeze, input: Tensor, winners: Callable[[Tensor], Tensor], window: Window
) -> tuple[Tensor, Tensor]:
    """What a pool takes from the window's dimensions, and where: indices into these, flat."""
    dims = window.dims
    flat = input.flatten(-dims)
    at = freeze(Pooled(winners, flat.shape[-1], window), input)
    return flat.gather(-1, at.flatten(-dims)).unflatten(-1, at.shape[-dims:]), at


def _max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode):
    k, s, p, d = (_spread(v, 1)[0] for v in (kernel_size, stride, padding, dilation))
    image = input.unsqueeze(-2)
    return F.max_pool2d(image, (1, k), (1, s), (0, p), (1, d), ceil_mode).squeeze(-2)


def _max_pool3d(input, kernel_size, stride, padding, dilation, ceil_mode):
    """Over height and width of each slice, then over depth: the same winners, also of ties."""
    k, s, p, d = (_spread(v, 3) for v in (kernel_size, stride, padding, dilation))
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
        def winners(x: Tensor) -> Tensor:
            return self.pool(x, output_size, return_indices=True)[1]

        y, at = gathered(freeze, input, winners, adaptive(self.dims))
        return (y, at) if return_indices else y


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


def ranked(rank: int) -> Callable[..., Places]:
    """The one entry of a rank, as `Winner` has it."""
    return lambda decide, size, dim, args, kwargs: Winner(decide, size, dim, rank)


def in_order(decide: Callable, size: int, dim: int, args: tuple, kwargs: dict) -> Places:
    return Order(decide, size, dim, _option(args, kwargs, 1, "descending", False))


def first_in_order(decide: Callable, size: int, dim: int, args: tuple, kwargs: dict) -> Places:
    if not _option(args, kwargs, 3, "sorted", True):
        return Places(decide, size)
    return Order(decide, size, dim, _option(args, kwargs, 2, "largest", True))


def unranked(decide: Callable, size: int, dim: int, args: tuple, kwargs: dict) -> Places:
    return Places(decide, size)


def _option(args: tuple, kwargs: dict, at: int, name: str, default: bool) -> bool:
    return bool(args[at] if at < len(args) else kwargs.get(name, default))


class Selection:
    """Entries that the reference's values choose along a dimension: max, median, sort, topk ...

    `function` is torch's; it takes the dimension at position `dim_at` and returns (values,
    indices); without one, where there is no `default`, it gives a single value. `choice` makes the
    decision of what gives the indices, the dimension's size, the dimension, and the call's other
    arguments. `pairwise` is what the function does with two tensors.
    """

    def __init__(
        self,
        function: Callable,
        choice: Callable[[Callable, int, int, tuple, dict], Places],
        dim_at: int = 1,
        default: int | None = None,
        pairwise: Callable | None = None,
    ):
        self.function = function
        self.choice = choice
        self.dim_at = dim_at
        self.default = default
        self.pairwise = pairwise

    def __call__(self, freeze, input, *args, **kwargs):
        given = [*args, *kwargs.values()]
        if self.pairwise and given and isinstance(given[0], Tensor):
            return self.pairwise(input, given[0])
        if not given and self.default is None:
            return self._of_all(freeze, input)
        at = self.dim_at - 1
        dim = kwargs.get("dim", args[at] if at < len(args) else self.default)
        freeze.require_apart(input, [dim])
        if input.dim() == 0:
            input = input.reshape(1)
            values, indices = self(freeze, input, *args, **kwargs)
            return _named(self.function, values.reshape(()), indices.reshape(()))

        def decide(x: Tensor) -> Tensor:
            return self.function(x, *args, **kwargs)[1]

        indices = freeze(self.choice(decide, input.shape[dim], dim, args, kwargs), input)
        kept = indices if indices.dim() == input.dim() else indices.unsqueeze(dim)
        values = input.gather(dim, kept)
        values = values if kept is indices else values.squeeze(dim)
        return _named(self.function, values, indices)

    def _of_all(self, freeze, input):
        """The mean of those that are equal to the value, as torch's derivative has it."""
        freeze.require_apart(input, range(input.dim()))

        def shares(x: Tensor) -> Tensor:
            chosen = x == self.function(x)
            return chosen / chosen.sum()

        return (input * freeze(Shares(shares), input)).sum()


def _named(function: Callable, values: Tensor, indices: Tensor) -> tuple:
    return getattr(torch.return_types, function.__name__)((values, indices))


def amax(freeze, input, dim=(), keepdim=False):
    return _extreme(freeze, torch.argmax, 1, input, dim, keepdim)


def amin(freeze, input, dim=(), keepdim=False):
    return _extreme(freeze, torch.argmin, -1, input, dim, keepdim)


def aminmax(freeze, input, *, dim=None, keepdim=False):
    dims = () if dim is None else dim
    least, most = (f(freeze, input, dims, keepdim) for f in (amin, amax))
    return torch.return_types.aminmax((least, most))


def msort(freeze, input):
    return torch.sort(input, dim=0)[0]


def nansum(freeze, input, dim=None, keepdim=False, *, dtype=None):
    return torch.where(freeze(Standing(torch.isnan), input), 0, input).sum(
        dim, keepdim, dtype=dtype
    )


def nanmean(freeze, input, dim=None, keepdim=False, *, dtype=None):
    there = freeze(Standing(lambda x: ~torch.isnan(x)), input)
    count = there.sum(dim, keepdim)
    return torch.nansum(input, dim, keepdim, dtype=dtype) / count


def _extreme(freeze, winner: Callable, rank: int, input: Tensor, dim, keepdim: bool) -> Tensor:
    if input.dim() == 0:
        return input.clone()
    given = [dim] if isinstance(dim, int) else dim
    dims = sorted(d % input.dim() for d in given) or list(range(input.dim()))
    freeze.require_apart(input, dims)
    last = tuple(range(-len(dims), 0))
    flat = input.movedim(dims, last).flatten(-len(dims))
    decide = Winner(lambda x: winner(x, -1, keepdim=True), flat.shape[-1], -1, rank)
    y = flat.gather(-1, freeze(decide, flat)).squeeze(-1)
    for d in dims if keepdim else ():
        y = y.unsqueeze(d)
    return y


_OF_SEGMENT: dict[str, tuple[Callable, float]] = {  # and what an empty one gives
    "sum": (torch.sum, 0.0),
    "mean": (torch.sum, 0.0),
    "max": (torch.amax, -math.inf),
    "min": (torch.amin, math.inf),
    "prod": (torch.prod, 1.0),
}


def segment_reduce(
    freeze,
    data,
    reduce,
    *,
    lengths: Any = None,
    indices: Any = None,
    offsets: Any = None,
    axis=0,
    unsafe=False,
    initial=None,
):
    """Of each segment along a dimension what the reduction gives, which is expanded in turn."""
    lengths = offsets.diff(dim=-1) if lengths is None else lengths
    freeze.require_apart(data, [axis])
    if lengths.dim() > 1:
        rows = zip(data.unbind(0), lengths.unbind(0), strict=True)
        options = {"axis": axis - 1, "initial": initial}
        return torch.stack(
            [segment_reduce(freeze, x, reduce, lengths=n, **options) for x, n in rows]
        )
    function, empty = _OF_SEGMENT[reduce]
    found = [
        function(part, 0) if len(part) else part.new_full(part.shape[1:], empty)
        for part in data.split(lengths.tolist())
    ]
    y = torch.stack(found)
    if initial is not None:
        y = _with(reduce, y, initial)
    if reduce != "mean":
        return y
    counts = lengths.view(-1, *[1] * (y.dim() - 1)).to(y.dtype)
    # As torch has it: of none, nothing or what there was before.
    return y / (counts if initial is None else counts.clamp(min=1))


def _with(reduce: str, y: Tensor, initial: float) -> Tensor:
    """The values of segments with another one before them."""
    if reduce in ("sum", "mean"):
        return y + initial
    if reduce == "prod":
        return y * initial
    return y.clamp(min=initial) if reduce == "max" else y.clamp(max=initial)
