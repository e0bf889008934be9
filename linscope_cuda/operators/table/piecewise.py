"""ReLU and clamp."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .. import reference
from ..checks import batch, beside, order, rows
from ..derivatives import Linear
from ..empty import empty, packed
from ..operator import Operator

# ---- Checks ----


def _packed(op: str, x: Tensor, decision: Tensor, bits: int, channels_last: bool) -> None:
    references = rows(op, "decision", decision)
    batch(op, x, references)
    row = (math.prod(x.shape[1:]) * bits + 7) // 8
    beside(op, x, "decision", decision, (references, row), torch.uint8)
    order(op, x, channels_last)


def _in_place(op: str, x: Tensor, channels_last: bool) -> None:
    if not reference.is_dense(x, channels_last):
        raise ValueError(f"{op}: x is not dense in the decision's order")


def check_relu_scope(x, references, negative_slope, channels_last):
    batch("relu_scope", x, references)
    order("relu_scope", x, channels_last)


def check_relu_frozen(x, decision, negative_slope, channels_last):
    _packed("relu_frozen", x, decision, 1, channels_last)


def check_relu_frozen_(x, decision, negative_slope, channels_last):
    _packed("relu_frozen_", x, decision, 1, channels_last)
    _in_place("relu_frozen_", x, channels_last)


def check_clamp_scope(x, references, min, max, channels_last):
    batch("clamp_scope", x, references)
    order("clamp_scope", x, channels_last)
    if not min <= max:
        raise ValueError(f"clamp_scope: min must not be greater than max, got {min} and {max}")


def check_clamp_frozen(x, decision, min, max, channels_last):
    _packed("clamp_frozen", x, decision, 2, channels_last)


def check_clamp_frozen_(x, decision, min, max, channels_last):
    _packed("clamp_frozen_", x, decision, 2, channels_last)
    _in_place("clamp_frozen_", x, channels_last)


# ---- Fakes ----


def _scope(bits: int) -> Callable:
    return lambda x, references, *constants: (
        empty(x, tuple(x.shape), constants[-1]),
        packed(x, references, bits),
    )


def _frozen(x, decision, *constants):
    return empty(x, tuple(x.shape), constants[-1])


# ---- Derivatives ----


def _slope(x, _, negative_slope, channels_last):
    return ((negative_slope, channels_last),) * 2


def _without_bounds(x, _, min, max, channels_last):
    return ((0.0, 0.0, channels_last),) * 2


# ---- Decompositions ----


def _unpack(decision: Tensor, bits: int, x: Tensor, channels_last: bool) -> Tensor:
    """`reference.unpack` for the samples of x, in words of 32 bits: no vector of the CPU meets two
    words then, and inductor makes vector code. From bytes, a clamp took thirty times as long.
    """
    padded = torch.nn.functional.pad(decision, (0, -decision.shape[1] % 4))
    low, second, third, high = padded.int().unflatten(1, (-1, 4)).unbind(-1)
    words = (low | second << 8 | third << 16 | high << 24).unsqueeze(-1)
    for _ in range(bits):  # one shift by twice as much would be an index of 64 bits
        words = words >> torch.arange(32 // bits, dtype=torch.int32, device=x.device)
    pieces = (words & (2**bits - 1)).flatten(1)[:, : math.prod(x.shape[1:])]
    shape = x.shape[1:]
    if not channels_last:
        return pieces.reshape(decision.shape[0], *shape)
    return pieces.reshape(decision.shape[0], *shape[1:], shape[0]).movedim(-1, 1)


def _apply(function: Callable, pieces: Tensor, x: Tensor, constants: tuple, last: bool) -> Tensor:
    y = function(pieces, reference.by_reference(x, pieces.shape[0]), *constants)
    return reference.dense(y.reshape(x.shape), last)


def _fusible_relu(
    x: Tensor, decision: Tensor, negative_slope: float, channels_last: bool
) -> Tensor:
    open = _unpack(decision, 1, x, channels_last) != 0
    return _apply(reference.relu_apply, open, x, (negative_slope,), channels_last)


def _fusible_clamp(
    x: Tensor, decision: Tensor, min: float, max: float, channels_last: bool
) -> Tensor:
    pieces = _unpack(decision, 2, x, channels_last)
    return _apply(reference.clamp_apply, pieces, x, (min, max), channels_last)


# ---- Entries ----

ENTRIES = [
    Operator(
        reference.relu_scope,
        check=check_relu_scope,
        fake=_scope(1),
        arguments="xR..",
        results="xd",
        derivative=Linear("relu_frozen", "relu_frozen", _slope),
    ),
    Operator(
        reference.relu_frozen,
        check=check_relu_frozen,
        fake=_frozen,
        arguments="xd..",
        results="x",
        derivative=Linear("relu_frozen", "relu_frozen", _slope),
        decomposition=_fusible_relu,
        sharding="samples",
    ),
    Operator(
        reference.relu_frozen_,
        check=check_relu_frozen_,
        fake=lambda *args: None,
        arguments="xd..",
        results="",
    ),
    Operator(
        reference.clamp_scope,
        check=check_clamp_scope,
        fake=_scope(2),
        arguments="xR...",
        results="xd",
        derivative=Linear("clamp_frozen", "clamp_frozen", _without_bounds),
    ),
    Operator(
        reference.clamp_frozen,
        check=check_clamp_frozen,
        fake=_frozen,
        arguments="xd...",
        results="x",
        derivative=Linear("clamp_frozen", "clamp_frozen", _without_bounds),
        decomposition=_fusible_clamp,
        sharding="samples",
    ),
    Operator(
        reference.clamp_frozen_,
        check=check_clamp_frozen_,
        fake=lambda *args: None,
        arguments="xd...",
        results="",
    ),
]
