"""Functions of single values: secants for the smooth ones, selections for those with corners."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C import DisableTorchFunction

from .fused import Clamp

BETWEEN = Clamp(lambda min=None, max=None: (min, max))

# Gauss-Legendre on [0, 1], three points.
_NODES = (0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5)
_WEIGHTS = (5 / 18, 8 / 18, 5 / 18)

# Below it (h(x) - h(0)) / x loses more digits than the quadrature does.
_NEAR_ZERO = 0.05


def secant_slope(h: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(h(x) - h(0)) / x, and h'(0) at 0, elementwise and to x's last digits.

    Near 0 it is the mean of h' over [0, x], by quadrature.
    """
    wide = x.double()
    near = wide.abs() < _NEAR_ZERO
    far = torch.where(near, 1, wide)
    slope = (h(far) - h(torch.zeros_like(far))) / far
    close = torch.where(near, wide, 0)
    one = torch.ones_like(close)
    mean = sum(
        weight * torch.func.jvp(h, (node * close,), (one,))[1]
        for node, weight in zip(_NODES, _WEIGHTS, strict=True)
    )
    return torch.where(near, mean, slope).to(x.dtype)


class Secant:
    """A smooth h as the secant through h(0): A = (h(x0) - h(0)) / x0, c = h(0).

    Equation 3 holds, also at x0 = 0, where A is h'(0). `literal` is the paper's A = h(x0) / x0.
    """

    def __init__(self, function: Callable[..., Tensor], literal: bool = False):
        self.function = function
        self.literal = literal

    def __call__(self, freeze, input, *args, **kwargs):
        def h(x):
            return self.function(x, *args, **kwargs)

        if self.literal:
            return input * freeze(lambda x: h(x) / x, input)
        with DisableTorchFunction():
            at_zero = h(torch.zeros((), dtype=torch.float64)).item()
        return input * freeze(partial(secant_slope, h), input) + at_zero


def hardsigmoid(freeze, input):
    return F.hardtanh(input, -3.0, 3.0) / 6 + 0.5


def hardswish(freeze, input):
    return input * freeze(F.hardsigmoid, input)


def celu(freeze, input, alpha=1.0):
    return alpha * F.elu(input / alpha)  # torch's own derivative of celu has but float32's digits


def threshold(freeze, input, threshold, value):
    return torch.where(freeze(torch.gt, input, threshold), input, value)


def hardshrink(freeze, input, lambd=0.5):
    return input * freeze(lambda x: ~(x.abs() <= lambd), input)


def softshrink(freeze, input, lambd=0.5):
    return input - F.hardtanh(input, -lambd, lambd)


def tanhshrink(freeze, input):
    return input - torch.tanh(input)


def absolute(freeze, input):
    return F.leaky_relu(input, -1.0)


def rrelu(freeze, input, lower=1 / 8, upper=1 / 3, training=False):
    if training:
        raise ValueError("rrelu is random in training mode; call model.eval()")
    return F.leaky_relu(input, (lower + upper) / 2)


def glu(freeze, input, dim=-1):
    value, gate = input.chunk(2, dim)
    return value * torch.sigmoid(gate)


def _wins(a: Tensor, b: Tensor) -> Tensor:
    return (a >= b) | a.isnan()


def maximum(freeze, input, other):
    return torch.where(freeze(_wins, input, other), input, other)


def minimum(freeze, input, other):
    return torch.where(freeze(lambda a, b: _wins(-a, -b), input, other), input, other)


def clamp(freeze, input, min=None, max=None):
    if not isinstance(min, Tensor) and not isinstance(max, Tensor):
        return BETWEEN(freeze, input, min, max)
    if min is not None:
        input = torch.maximum(input, torch.as_tensor(min, dtype=input.dtype))
    return input if max is None else torch.minimum(input, torch.as_tensor(max, dtype=input.dtype))


class Decided:
    """A function whose whole value is a decision: a comparison, a rank, a sign."""

    def __init__(self, function: Callable[..., Tensor]):
        self.function = function

    def __call__(self, freeze, *args, **kwargs):
        def decide(*values):
            named = dict(zip(kwargs, values[len(args) :], strict=True))
            return self.function(*values[: len(args)], **named)

        return freeze(decide, *args, *kwargs.values())
