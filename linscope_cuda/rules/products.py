"""Products of two activations: one factor is frozen, the gate, or half of each."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from .choices import Discrete
from .smooth import Secant
from .taylor import Homogeneous


def _value(x: Tensor) -> Tensor:
    return x


def product(freeze, function, input, other, default: str | None = None):
    """function(input, other), linear in each: frozen is the factor that a Policy names, or the
    smaller one, or the gate; where none is, half of each: A x = (B(x0, y) + B(x, y0)) / 2, the mean
    of the derivative on the way from 0.
    """
    factor = freeze.frozen_factor(input, other, default)
    first = function(freeze(_value, input), other) if factor != "second" else None
    second = function(input, freeze(_value, other)) if factor != "first" else None
    if first is None or second is None:
        return second if first is None else first
    return (first + second) / 2


def multiply(freeze, input, other):
    if input is other:
        return square(freeze, input)
    return product(freeze, torch.mul, input, other)


def bilinear(function: Callable[..., Tensor], default: str | None = None):
    """The rule of a function that is linear in each of its first two arguments; by `default`, the
    "first" is frozen, if it is a matrix, as attention weights are.
    """

    def rule(freeze, input, other, *args, **kwargs):
        return product(freeze, lambda a, b: function(a, b, *args, **kwargs), input, other, default)

    return rule


def divide(freeze, input, other, rounding_mode=None):
    if rounding_mode:
        whole = Discrete(lambda a, b: torch.div(a, b, rounding_mode=rounding_mode))
        return freeze(whole, input, other)
    if not freeze.is_probe(input):
        return _RATIO(freeze, input, other)
    return input / freeze(_value, other)


_RATIO = Secant(torch.div)


def reversed_divide(freeze, input, other):
    return torch.reciprocal(input) * other


def einsum(freeze, equation, *operands):
    operands = operands[0] if len(operands) == 1 else operands
    if sum(map(freeze.is_probe, operands)) != 2 or len(operands) != 2:
        return Homogeneous(torch.einsum, sum(map(freeze.is_probe, operands)))(
            freeze, equation, *operands
        )
    return bilinear(lambda a, b: torch.einsum(equation, a, b), "first")(freeze, *operands)


def plus_product(function: Callable[..., Tensor]):
    """beta input + alpha function(a, b): addmm and its kin."""

    def rule(freeze, input, *pair, beta=1, alpha=1, **named):
        first, second = (*pair, *named.values())
        return beta * input + alpha * function(first, second)

    return rule


def addcmul(freeze, input, tensor1, tensor2, *, value=1):
    return input + value * (tensor1 * tensor2)


def addcdiv(freeze, input, tensor1, tensor2, *, value=1):
    return input + value * (tensor1 / tensor2)


def xlogy(freeze, input, other):
    return input * torch.log(other)


def xlog1py(freeze, input, other):
    return input * torch.log1p(other)


def ldexp(freeze, input, other):
    return input * torch.exp2(other)


def power(freeze, input, exponent):
    """x^n as x0^(n-1) x for whole n from 1 on, other powers as secants."""
    if isinstance(exponent, int | float) and exponent >= 1 and exponent == int(exponent):
        return input * freeze(lambda x: x.pow(exponent - 1), input)
    return _POWER(freeze, input, exponent)


_POWER = Secant(torch.pow)


def square(freeze, input):
    return input * freeze(_value, input)


def chain(freeze, tensors):
    return reduce(torch.matmul, tensors)


def polar(freeze, abs, angle):
    return torch.complex(abs * torch.cos(angle), abs * torch.sin(angle))


def factors(input, dim=None, keepdim=False, *, dtype=None) -> int:
    """How many values torch.prod multiplies."""
    return input.numel() if dim is None else input.shape[dim] if input.dim() else 1


def factors_so_far(input, dim, *, dtype=None) -> Tensor:
    """The same of torch.cumprod, for each of its results."""
    length = factors(input, dim)
    counts = torch.arange(1, length + 1, dtype=input.dtype, device=input.device)
    return counts.reshape(-1, *[1] * (input.dim() - 1 - dim % max(input.dim(), 1)))


def triangular_solve(freeze, input, A, upper=True, transpose=False, unitriangular=False):
    matrix = A.mT if transpose else A
    given = {"upper": upper != transpose, "unitriangular": unitriangular}
    return torch.linalg.solve_triangular(matrix, input, **given), A.clone()


def operator(package: str, name: str) -> Callable[..., Any]:
    """An operator that is there once its package is imported."""
    return lambda *args, **kwargs: getattr(getattr(torch.ops, package), name)(*args, **kwargs)


class Placed:
    """A function that is linear in its values once the arguments at these positions, which say
    where they are taken from and how much each counts, are decisions.
    """

    def __init__(self, function: Callable[..., Tensor], *at: int):
        self.function, self.at = function, at

    def __call__(self, freeze, *args, **kwargs):
        given = [freeze(_value, a) if i in self.at else a for i, a in enumerate(args)]
        return self.function(*given, **kwargs)
