"""Instance normalisation: the decision is mean and 1 / sqrt(variance + eps) of each plane."""

from __future__ import annotations

import math
from typing import Optional

import torch
from torch import Tensor

from .layout import by_reference, dense, is_channels_last, wide_dtype

# The operators' schemas are inferred from annotations that spell Optional out.
# ruff: noqa: UP045


def _per_plane(t: Tensor, x: Tensor) -> Tensor:
    """(references, channels), to multiply (probes, references, channels, *spatial)."""
    return t.reshape(*t.shape, *[1] * (x.dim() - 2))


def instance_norm_scope(
    x: Tensor, references: int, weight: Optional[Tensor], bias: Optional[Tensor], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """y, normalised with x0's statistics, and these: mean and 1 / sqrt(variance + eps)."""
    wide = wide_dtype(x.dtype)
    if x.numel():
        planes = x[:references].to(wide).reshape(references, x.shape[1], -1)
        mean, rstd = planes.mean(2), (planes.var(2, unbiased=False) + eps).rsqrt()
    else:
        mean = rstd = x.new_zeros(references, x.shape[1], dtype=wide)
    scale = rstd if weight is None else rstd * weight.to(wide)
    shift = None if bias is None else bias.to(wide).expand_as(rstd)
    return instance_norm_frozen(x, mean, scale, shift), mean, rstd


def instance_norm_frozen(
    x: Tensor, mean: Optional[Tensor], scale: Tensor, shift: Optional[Tensor]
) -> Tensor:
    """(x - mean) scale + shift for each plane; None: without."""
    y = by_reference(x.to(wide_dtype(x.dtype)), scale.shape[0])
    if mean is not None:
        y = y - _per_plane(mean, x)
    y = y * _per_plane(scale, x)
    if shift is not None:
        y = y + _per_plane(shift, x)
    y = y.reshape(x.shape).to(x.dtype)
    return dense(y, is_channels_last(x))


def instance_norm_scope_backward(
    grad_y: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Optional[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients for x, bias and weight, per reference, through the statistics as well."""
    wide, references = wide_dtype(x.dtype), mean.shape[0]
    g = by_reference(grad_y.to(wide), references)
    normalized = by_reference(x.to(wide), references) - _per_plane(mean, x)
    normalized = normalized * _per_plane(rstd, x)
    pixels = list(range(2, x.dim()))
    sum_g, sum_gx = g.sum(0), (g * normalized).sum(0)
    if pixels:
        sum_g, sum_gx = sum_g.sum(pixels), sum_gx.sum(pixels)
    count = max(1, math.prod(x.shape[2:]))
    mean_g, mean_gx = _per_plane(sum_g / count, x), _per_plane(sum_gx / count, x)
    through = torch.cat([(mean_g + normalized[0] * mean_gx)[None], torch.zeros_like(g[1:])])
    scale = rstd if weight is None else rstd * weight.to(wide)
    grad_x = (_per_plane(scale, x) * (g - through)).reshape(x.shape).to(x.dtype)
    return dense(grad_x, is_channels_last(x)), sum_g, sum_gx


def instance_norm_scope_jvp(
    x: Tensor,
    x_t: Tensor | None,
    references: int,
    weight: Tensor | None,
    weight_t: Tensor | None,
    bias_t: Tensor | None,
    eps: float,
) -> Tensor:
    """The derivative of y along the tangents given, through the statistics as well."""
    wide = wide_dtype(x.dtype)
    _, mean, rstd = instance_norm_scope(x, references, None, None, eps)
    centered = by_reference(x.to(wide), references) - _per_plane(mean, x)
    y_t = torch.zeros_like(centered)
    if x_t is not None:
        t = by_reference(x_t.to(wide), references)
        t0 = t[0].reshape(*mean.shape, -1)
        rstd_t = -(rstd**3) * (centered[0].reshape(t0.shape) * t0).mean(2)
        t = t - _per_plane(t0.mean(2), x)
        y_t = t * _per_plane(rstd, x) + centered * _per_plane(rstd_t, x)
        if weight is not None:
            y_t = y_t * _per_plane(weight.to(wide), x)
    if weight_t is not None:
        y_t = y_t + centered * _per_plane(rstd * weight_t.to(wide), x)
    if bias_t is not None:
        y_t = y_t + _per_plane(bias_t.to(wide), x)
    return y_t.reshape(x.shape).to(x.dtype)
