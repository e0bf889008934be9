"""Smooth switches: y = A(x0) x + shift."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .layout import by_reference, dense, is_channels_last, wide_dtype


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
    """y = [h(x0), A(x0) x1 + shift] and the gate A(x0), for the gate of that number in GATES."""
    wide = x[:references].to(wide_dtype(x.dtype))
    y0, gate = _gate(kind).value(wide).to(x.dtype), _gate(kind).gate(wide).to(x.dtype)
    y1 = gate_frozen(x[references:], gate, _gate(kind).shift)
    last = is_channels_last(x)
    return dense(torch.cat([y0, y1]), last), dense(gate, last)


def gate_frozen(x: Tensor, gate: Tensor, shift: float) -> Tensor:
    """gate x + shift."""
    wide = wide_dtype(x.dtype)
    y = by_reference(x.to(wide), gate.shape[0]) * gate.to(wide) + shift
    y = y.reshape(x.shape).to(x.dtype)
    return dense(y, is_channels_last(x))


def gate_scope_backward(grad_y: Tensor, x: Tensor, references: int, kind: int) -> Tensor:
    """The gradient for x, through the gate as well."""
    wide, gate = wide_dtype(x.dtype), _gate(kind)
    g, samples = by_reference(grad_y.to(wide), references), by_reference(x.to(wide), references)
    x0 = samples[0]
    grad_x0 = gate.value_slope(x0) * g[0] + gate.gate_slope(x0) * (samples[1:] * g[1:]).sum(0)
    grad_x = torch.cat([grad_x0[None], gate.gate(x0) * g[1:]]).reshape(x.shape).to(x.dtype)
    return dense(grad_x, is_channels_last(x))


def gate_scope_jvp(x: Tensor, x_t: Tensor, references: int, kind: int) -> Tensor:
    """The derivative of y along x_t, through the gate as well."""
    gate, wide = _gate(kind), wide_dtype(x.dtype)
    samples, t = by_reference(x.to(wide), references), by_reference(x_t.to(wide), references)
    x0 = samples[0]
    y0 = gate.value_slope(x0) * t[0]
    y1 = gate.gate(x0) * t[1:] + gate.gate_slope(x0) * t[0] * samples[1:]
    return torch.cat([y0[None], y1]).reshape(x.shape).to(x.dtype)
