"""Products of two activations: one factor is frozen, the gate."""

from __future__ import annotations

import torch
from torch import Tensor

from .entry import UnscopedOperation


def _value(x: Tensor) -> Tensor:
    return x


def multiply(freeze, input, other):
    """Frozen is the factor that a Policy names, or the smaller one, or the one that a sigmoid made;
    refused where none of these tells.
    """
    if freeze.frozen_factor(input, other) == "first":
        return freeze(_value, input) * other
    return input * freeze(_value, other)


def divide(freeze, input, other, rounding_mode=None):
    if rounding_mode or not freeze.is_probe(input) or not freeze.is_probe(other):
        raise UnscopedOperation("only the quotient of two activations has a rule")
    return input / freeze(_value, other)


def matrix_product(function):
    """The first factor is frozen: the matrix, as attention weights are."""

    def rule(freeze, input, other):
        if freeze.frozen_factor(input, other, "first") == "first":
            return function(freeze(_value, input), other)
        return function(input, freeze(_value, other))

    return rule


def einsum(freeze, equation, *operands):
    operands = operands[0] if len(operands) == 1 else operands
    if len(operands) != 2:
        raise UnscopedOperation("einsum of more than two activations has no rule")
    return matrix_product(lambda a, b: torch.einsum(equation, a, b))(freeze, *operands)


def power(freeze, input, exponent):
    """x^n as x0^(n-1) x, for whole n from 1 on."""
    if not isinstance(exponent, int | float) or exponent < 1 or exponent != int(exponent):
        raise UnscopedOperation(f"a power of {exponent} has no rule, those of 1, 2, 3 ... have")
    return input * freeze(lambda x: x.pow(exponent - 1), input)


def square(freeze, input):
    return input * freeze(_value, input)
