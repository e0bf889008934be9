"""Functions of single values: secants for the smooth ones, selections for those with corners."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C import DisableTorchFunction

from ..program.derivative import jvp
from .choices import Beyond, Choice, Compared, Standing
from .entry import Rule, UnscopedOperation
from .fused import Clamp
from .taylor import in_probes

BETWEEN = Clamp(lambda min=None, max=None: (min, max))

# Gauss-Legendre on [0, 1], three points.
_NODES = (0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5)
_WEIGHTS = (5 / 18, 8 / 18, 5 / 18)

# Below it (h(x) - h(0)) / x loses more digits than the quadrature does.
_NEAR_ZERO = 0.05


def secant_slope(h: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(h(x) - h(0)) / x, and h'(0) at 0, elementwise and to x's last digits; h(x) / x where h(0)
    is infinite.

    Near 0 it is the mean of h' over [0, x], by quadrature.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float64))
    zero = h(torch.zeros_like(wide))
    zero = torch.where(zero.isfinite(), zero, 0)
    near = wide.abs() <= torch.where(zero == 0, 0, _NEAR_ZERO)  # nothing to lose beside 0
    far = torch.where(near, 1, wide)
    slope = (h(far) - zero) / far
    if near.any():
        mean = _mean_derivative(h, torch.where(near, wide, 0))
        # A root is steep at 0, where any finite slope is as right.
        mean = torch.where(mean.isfinite(), mean, 0)
        # The quadrature's own error, of what bends within these bounds.
        direct = (h(wide) - zero) / torch.where(wide == 0, 1, wide)
        bent = ((mean - direct) * wide).abs() > 8 * torch.finfo(wide.dtype).eps * (1 + zero.abs())
        slope = torch.where(near, torch.where(bent & (wide != 0), direct, mean), slope)
    return slope.to(x.dtype)


def _secant(h: Callable[[Tensor], Tensor], x: Tensor) -> Tensor | tuple[Tensor, ...]:
    """The slopes; beside them, where x or h(x) is infinite or NaN, which entries these are and what
    h gives there: constants, that say nothing of x.
    """
    slope, value = secant_slope(h, x), h(x)
    fixed = ~(x.isfinite() & value.isfinite())
    if not fixed.any():
        return slope
    return slope.masked_fill(fixed, 0), fixed, value.masked_fill(~fixed, 0)


def _mean_derivative(h: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Of h over [0, x]."""
    total: Any = 0
    for weight, node in zip(_WEIGHTS, _NODES, strict=True):
        total = total + weight * jvp(h, (node * x,), (torch.ones_like(x),))[1]
    return total


class Secant:
    """A smooth h of single values as the secant through h(0): A = (h(x0) - h(0)) / x0, c = h(0).

    Equation 3 holds, also at x0 = 0, where A is h'(0). Where h(0) is infinite, as a logarithm's, A
    is h(x0) / x0 and c is 0. `literal` is the paper's A = h(x0) / x0 everywhere. Further arguments
    are constants; it is any one of them that depends on the network's input.
    """

    def __init__(self, function: Callable[..., Tensor], literal: bool = False):
        self.function = function
        self.literal = literal

    def __call__(self, freeze, *args, **kwargs):
        h, probes = in_probes(freeze, self.function, args, kwargs)
        if len(probes) != 1:
            raise UnscopedOperation("it has a rule for one activation, not for two")
        x = probes[0]
        if self.literal:
            return x * freeze(lambda x: h(x) / x, x)
        decided = freeze(partial(_secant, h), x)
        with DisableTorchFunction():
            zero = h(torch.zeros((), dtype=torch.promote_types(x.dtype, torch.float64)))
            zero = torch.where(zero.isfinite(), zero, 0)
            zero = zero.item() if zero.numel() == 1 else zero.to(x.dtype)
        if isinstance(decided, Tensor):
            return x * decided + zero
        slope, fixed, value = decided
        return torch.where(fixed, value, x.masked_fill(_of_shape(fixed, x), 0) * slope + zero)


def _of_shape(mask: Tensor, x: Tensor) -> Tensor:
    """A mask of values, for the argument that was broadcast to them."""
    shape = [1] * (mask.dim() - x.dim()) + list(x.shape)
    dims = [d for d, size in enumerate(shape) if size != mask.shape[d]]
    return (mask.all(dims, keepdim=True) if dims else mask).reshape(x.shape)


class OfTwo:
    """A function of two activations, and the secant of it where one of the two is a constant."""

    def __init__(self, function: Callable[..., Tensor], both: Rule):
        self.alone, self.both = Secant(function), both

    def __call__(self, freeze, input, other):
        several = freeze.is_probe(input) and freeze.is_probe(other)
        return (self.both if several else self.alone)(freeze, input, other)


def log_add(freeze, input, other):
    """log(e^a + e^b) as the secant of what is smooth in a - b."""
    return other - F.logsigmoid(other - input)


def log2_add(freeze, input, other):
    return other - F.logsigmoid((other - input) * math.log(2)) / math.log(2)


def hardsigmoid(freeze, input):
    return F.hardtanh(input, -3.0, 3.0) / 6 + 0.5


def hardswish(freeze, input):
    return input * freeze(F.hardsigmoid, input)


def celu(freeze, input, alpha=1.0):
    return alpha * F.elu(input / alpha)  # torch's own derivative of celu has but float32's digits


_GREATER = Compared(torch.gt)


def threshold(freeze, input, threshold, value):
    return torch.where(freeze(_GREATER, input, threshold), input, value)


def hardshrink(freeze, input, lambd=0.5):
    return input * freeze(Beyond(lambd), input)


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


_LARGER = Compared(_wins)
_SMALLER = Compared(lambda a, b: _wins(-a, -b), less=True)
_NEGATIVE = Compared(torch.signbit, less=True)


def maximum(freeze, input, other):
    return torch.where(freeze(_LARGER, input, other), input, other)


def minimum(freeze, input, other):
    return torch.where(freeze(_SMALLER, input, other), input, other)


def clamp(freeze, input, min=None, max=None):
    if not isinstance(min, Tensor) and not isinstance(max, Tensor):
        return BETWEEN(freeze, input, min, max)
    if min is not None:
        input = torch.maximum(input, torch.as_tensor(min, dtype=input.dtype))
    return input if max is None else torch.minimum(input, torch.as_tensor(max, dtype=input.dtype))


def copysign(freeze, input, other):
    """The sign, if it comes from an activation, is a decision."""
    if freeze.is_probe(other):
        other = torch.where(freeze(_NEGATIVE, other), -1.0, 1.0).to(other.dtype)
    return input.abs() * torch.copysign(torch.ones_like(input), other)


def nan_to_num(freeze, input, nan=0.0, posinf=None, neginf=None):
    def given(x):
        return torch.where(x.isfinite(), 0, x.nan_to_num(nan, posinf, neginf))

    finite, other = freeze(Standing(lambda x: (x.isfinite(), given(x))), input)
    return torch.where(finite, input, other)


# Functions whose values change where two numbers meet, or never.
_LESS = partial(Compared, less=True)
CHOICES: dict[str, Callable[[Callable[..., Tensor]], Choice]] = {
    **dict.fromkeys(("gt", "ge", "greater", "greater_equal"), Compared),
    **dict.fromkeys(("lt", "le", "less", "less_equal", "signbit"), _LESS),
    **dict.fromkeys(("isnan", "isinf", "isfinite", "isposinf", "isneginf", "isreal"), Standing),
}


class Decided:
    """A function whose whole value is a decision: a comparison, a rank, a direction.

    `choice` says what kind of one it is, if it is one of several.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        choice: Callable[[Callable[..., Tensor]], Choice] | None = None,
    ):
        self.function, self.choice = function, choice

    def __call__(self, freeze, *args, **kwargs):
        def decide(*values):
            named = dict(zip(kwargs, values[len(args) :], strict=True))
            return self.function(*values[: len(args)], **named)

        what = decide if self.choice is None else self.choice(decide)
        return freeze(what, *args, *kwargs.values())
