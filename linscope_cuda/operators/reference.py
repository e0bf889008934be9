"""Every operator in plain torch: the specification, the oracle of the tests, and what runs where
nothing was compiled.

Names and arguments are those of the compiled operators. `x` holds `references` reference samples,
then probes; probe j belongs to reference j mod references. float16 and bfloat16 are computed in
float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional

import torch
from torch import Tensor

# Annotations below spell Optional and list[int] out: the operators' schemas are inferred from them.
# ruff: noqa: UP045


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
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
    if not channels_last:
        return torch.contiguous_format
    return torch.channels_last_3d if dims == 5 else torch.channels_last


def dense(x: Tensor, channels_last: bool) -> Tensor:
    """x without gaps in memory, in that order."""
    return x.contiguous(memory_format=memory_format(channels_last, x.dim()))


def by_reference(x: Tensor, references: int) -> Tensor:
    """(samples, ...) -> (samples / references, references, ...), reference samples first."""
    return x.reshape(x.shape[0] // references, references, *x.shape[1:])


# ---- Piecewise-linear units: decisions of 1 or 2 bits, packed in the order of memory ----


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
    # A select: multiplying by a mask would turn an infinite probe into NaN.
    return torch.where(open, x, negative_slope * x if negative_slope else torch.zeros_like(x))


def relu_scope(
    x: Tensor, references: int, negative_slope: float, channels_last: bool
) -> tuple[Tensor, Tensor]:
    open = ~(x[:references] <= 0)  # NaN is open: it passes, as in torch
    y = relu_apply(open, by_reference(x, references), negative_slope).reshape(x.shape)
    return dense(y, channels_last), pack(open, 1, channels_last)


def relu_frozen(x: Tensor, decision: Tensor, negative_slope: float, channels_last: bool) -> Tensor:
    open = unpack(decision, 1, tuple(x.shape[1:]), channels_last).bool()
    y = relu_apply(open, by_reference(x, decision.shape[0]), negative_slope).reshape(x.shape)
    return dense(y, channels_last)


def relu_frozen_(x: Tensor, decision: Tensor, negative_slope: float, channels_last: bool) -> None:
    x.copy_(relu_frozen(x, decision, negative_slope, channels_last))


def _bounds(x: Tensor, min: float, max: float) -> tuple[Tensor, Tensor]:
    """As computed with: infinite where they are beyond the dtype, not torch's default one."""
    double = torch.tensor([min, max], dtype=torch.float64, device=x.device)
    low, high = double.to(wide_dtype(x.dtype))
    return low, high


def clamp_apply(piece: Tensor, x: Tensor, min: float, max: float) -> Tensor:
    saturated = torch.where(piece == 0, *_bounds(x, min, max)).to(x.dtype)
    return torch.where(piece == 1, x, saturated)


def clamp_scope(
    x: Tensor, references: int, min: float, max: float, channels_last: bool
) -> tuple[Tensor, Tensor]:
    x0 = x[:references].to(wide_dtype(x.dtype))
    low, high = _bounds(x, min, max)
    piece = torch.where(x0 <= low, 0, torch.where(x0 >= high, 2, 1))
    y = clamp_apply(piece, by_reference(x, references), min, max).reshape(x.shape)
    return dense(y, channels_last), pack(piece, 2, channels_last)


def clamp_frozen(
    x: Tensor, decision: Tensor, min: float, max: float, channels_last: bool
) -> Tensor:
    piece = unpack(decision, 2, tuple(x.shape[1:]), channels_last)
    y = clamp_apply(piece, by_reference(x, decision.shape[0]), min, max).reshape(x.shape)
    return dense(y, channels_last)


def clamp_frozen_(x: Tensor, decision: Tensor, min: float, max: float, channels_last: bool) -> None:
    x.copy_(clamp_frozen(x, decision, min, max, channels_last))


# ---- Smooth switches: y = A(x0) x + shift ----


class Gate(NamedTuple):
    """h(x0) = A(x0) x0 + shift, with the derivatives of h and A."""

    shift: float
    value: Callable[[Tensor], Tensor]
    gate: Callable[[Tensor], Tensor]
    value_slope: Callable[[Tensor], Tensor]
    gate_slope: Callable[[Tensor], Tensor]


def tanh_over(z: Tensor) -> Tensor:
    """tanh(z) / z, 1 at 0."""
    safe = torch.where(z == 0, 1, z)
    return torch.where(z == 0, 1, safe.tanh() / safe)


def tanh_over_slope(z: Tensor) -> Tensor:
    # Near 0 the quotient's numerator cancels; there it is the series of sinh(2z) - 2z.
    near = 4 * z * z < 1
    w = torch.where(near, 4 * z * z, 0)
    tail = torch.ones_like(w)
    for divisor in (210, 156, 110, 72, 42, 20):
        tail = 1 + w / divisor * tail
    series = -2 / 3 * z * tail / torch.where(near, z, 0).cosh() ** 2
    safe = torch.where(near, 1, z)
    t = safe.tanh()
    return torch.where(near, series, ((1 - t * t) * safe - t) / (safe * safe))


def sigmoid_slope(x: Tensor) -> Tensor:
    return x.sigmoid() * (-x).sigmoid()


def self_gated(gate: Callable, slope: Callable) -> Gate:
    """h(x) = x A(x): the unit itself says what its gate is."""
    return Gate(0.0, lambda x: x * gate(x), gate, lambda x: gate(x) + x * slope(x), slope)


def _cdf(x: Tensor) -> Tensor:
    return torch.special.ndtr(x)


def _cdf_slope(x: Tensor) -> Tensor:
    return torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _cdf_tanh(x: Tensor) -> Tensor:
    return 0.5 * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())


def _cdf_tanh_slope(x: Tensor) -> Tensor:
    t = (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh()
    return 0.5 * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)


GATES: dict[str, Gate] = {
    # The secant of sigmoid through h(0) = 1/2, in the tanh form, which keeps all digits near 0.
    "sigmoid": Gate(
        0.5,
        torch.sigmoid,
        lambda x: tanh_over(x / 2) / 4,
        sigmoid_slope,
        lambda x: tanh_over_slope(x / 2) / 8,
    ),
    "tanh": Gate(0.0, torch.tanh, tanh_over, lambda x: 1 - x.tanh() ** 2, tanh_over_slope),
    "silu": self_gated(torch.sigmoid, sigmoid_slope),
    "gelu": self_gated(_cdf, _cdf_slope),
    "gelu_tanh": self_gated(_cdf_tanh, _cdf_tanh_slope),
    # The paper's mask h(x)/x, infinite at 0.
    "sigmoid_mask": Gate(
        0.0,
        torch.sigmoid,
        lambda x: x.sigmoid() / x,
        sigmoid_slope,
        lambda x: (sigmoid_slope(x) * x - x.sigmoid()) / (x * x),
    ),
}


def _gate(kind: int) -> Gate:
    return list(GATES.values())[kind]


def gate_scope(x: Tensor, references: int, kind: int) -> tuple[Tensor, Tensor]:
    wide = x[:references].to(wide_dtype(x.dtype))
    y0, gate = _gate(kind).value(wide).to(x.dtype), _gate(kind).gate(wide).to(x.dtype)
    y1 = gate_frozen(x[references:], gate, _gate(kind).shift)
    last = is_channels_last(x)
    return dense(torch.cat([y0, y1]), last), dense(gate, last)


def gate_frozen(x: Tensor, gate: Tensor, shift: float) -> Tensor:
    wide = wide_dtype(x.dtype)
    y = by_reference(x.to(wide), gate.shape[0]) * gate.to(wide) + shift
    y = y.reshape(x.shape).to(x.dtype)
    return dense(y, is_channels_last(x))


def gate_scope_backward(grad_y: Tensor, x: Tensor, references: int, kind: int) -> Tensor:
    wide, gate = wide_dtype(x.dtype), _gate(kind)
    g, samples = by_reference(grad_y.to(wide), references), by_reference(x.to(wide), references)
    x0 = samples[0]
    grad_x0 = gate.value_slope(x0) * g[0] + gate.gate_slope(x0) * (samples[1:] * g[1:]).sum(0)
    grad_x = torch.cat([grad_x0[None], gate.gate(x0) * g[1:]]).reshape(x.shape).to(x.dtype)
    return dense(grad_x, is_channels_last(x))


def gate_scope_jvp(x: Tensor, x_t: Tensor, references: int, kind: int) -> Tensor:
    gate, wide = _gate(kind), wide_dtype(x.dtype)
    samples, t = by_reference(x.to(wide), references), by_reference(x_t.to(wide), references)
    x0 = samples[0]
    y0 = gate.value_slope(x0) * t[0]
    y1 = gate.gate(x0) * t[1:] + gate.gate_slope(x0) * t[0] * samples[1:]
    return torch.cat([y0[None], y1]).reshape(x.shape).to(x.dtype)


# ---- Max pooling: the decision is the number of the winning pixel within its window ----


def code_dtype(kernel: list[int]) -> torch.dtype:
    """That of the decision: a byte for windows of up to 256 pixels."""
    return torch.uint8 if kernel[0] * kernel[1] <= 256 else torch.int32


def _corners(y: Tensor, stride: list[int], padding: list[int]) -> tuple[Tensor, Tensor]:
    """Rows (h, 1) and columns (w,) of the input at which the windows of y's pixels start."""
    top = torch.arange(y.shape[2], device=y.device)[:, None] * stride[0] - padding[0]
    return top, torch.arange(y.shape[3], device=y.device) * stride[1] - padding[1]


def _taken(
    decision: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> tuple[Tensor, Tensor]:
    """Rows and columns of the input that the outputs (references, channels, h, w) take."""
    code = decision.long()
    top, left = _corners(code, stride, padding)
    row = top + code // kernel[1] * dilation[0]
    return row, left + code % kernel[1] * dilation[1]


def _sources(decision: Tensor, width: int, kernel: list[int], *window: list[int]) -> Tensor:
    """The same as flat places in the input plane."""
    row, column = _taken(decision, kernel, *window)
    return row * width + column


def _on_image(
    decision: Tensor, size: Sequence[int], kernel: list[int], *window: list[int]
) -> Tensor:
    """Which outputs take anything: a number that is no tap of the window, or a tap beside the
    image, takes 0 and gives nothing back.
    """
    row, column = _taken(decision, kernel, *window)
    tap = (decision >= 0) & (decision < kernel[0] * kernel[1])
    return tap & (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])


def max_pool2d_scope(
    x: Tensor,
    references: int,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
) -> tuple[Tensor, Tensor]:
    winners = torch.nn.functional.max_pool2d(
        x[:references], kernel, stride, padding, dilation, ceil_mode, return_indices=True
    )[1]
    top, left = _corners(winners, stride, padding)
    i = (winners // x.shape[3] - top) // dilation[0]
    j = (winners % x.shape[3] - left) // dilation[1]
    decision = dense((i * kernel[1] + j).to(code_dtype(kernel)), is_channels_last(x))
    return max_pool2d_frozen(x, decision, kernel, stride, padding, dilation), decision


def max_pool2d_frozen(
    x: Tensor,
    decision: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    window = (kernel, stride, padding, dilation)
    taken = _on_image(decision, x.shape[2:], *window).flatten(2)
    sources = _sources(decision, x.shape[3], *window).flatten(2).where(taken, 0)
    samples = by_reference(x.contiguous().flatten(2), decision.shape[0])
    y = samples.gather(3, sources.expand(samples.shape[0], *sources.shape)).where(taken, 0)
    return dense(y.reshape(x.shape[0], *decision.shape[1:]), is_channels_last(x))


def max_pool2d_frozen_transpose(
    u: Tensor,
    decision: Tensor,
    size: list[int],
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    window = (kernel, stride, padding, dilation)
    taken = _on_image(decision, size, *window).flatten(2)
    sources = _sources(decision, size[1], *window).flatten(2).where(taken, 0)
    samples = by_reference(u.contiguous().flatten(2), decision.shape[0]).to(wide_dtype(u.dtype))
    samples = samples.where(taken, 0)
    x = samples.new_zeros(*samples.shape[:3], size[0] * size[1])
    x = x.scatter_add(3, sources.expand(samples.shape[0], *sources.shape), samples)
    x = x.reshape(*u.shape[:2], *size).to(u.dtype)
    return dense(x, is_channels_last(u))


# ---- Instance normalisation: the decision is mean and 1 / sqrt(variance + eps) of each plane ----


def _per_plane(t: Tensor, x: Tensor) -> Tensor:
    """(references, channels), to multiply (probes, references, channels, *spatial)."""
    return t.reshape(*t.shape, *[1] * (x.dim() - 2))


def instance_norm_scope(
    x: Tensor, references: int, weight: Optional[Tensor], bias: Optional[Tensor], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
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


OPERATORS: dict[str, Callable] = {
    f.__name__: f
    for f in (
        relu_scope,
        relu_frozen,
        clamp_scope,
        clamp_frozen,
        gate_scope,
        gate_frozen,
        gate_scope_backward,
        max_pool2d_scope,
        max_pool2d_frozen,
        max_pool2d_frozen_transpose,
        instance_norm_scope,
        instance_norm_frozen,
        instance_norm_scope_backward,
    )
}

# Their first argument is their result.
IN_PLACE: dict[str, Callable] = {f.__name__: f for f in (relu_frozen_, clamp_frozen_)}
