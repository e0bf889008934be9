"""Frozen operators in plain torch, for compilers: so a compiled program fuses them with what stands
beside them.

torch.compile(backend="inductor") knows them; other compilers take `TABLE`, as in
`exported_program.run_decompositions(TABLE)`. Pooling and the scopes stay single kernels: a gather,
a transpose without atomics, and the packing of decisions are what they are written for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import native as _native  # noqa: F401  registers torch.ops.linscope
from . import reference
from .when_imported import when_imported


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


def relu_frozen(x: Tensor, decision: Tensor, negative_slope: float, channels_last: bool) -> Tensor:
    open = _unpack(decision, 1, x, channels_last) != 0
    return _apply(reference.relu_apply, open, x, (negative_slope,), channels_last)


def clamp_frozen(
    x: Tensor, decision: Tensor, min: float, max: float, channels_last: bool
) -> Tensor:
    pieces = _unpack(decision, 2, x, channels_last)
    return _apply(reference.clamp_apply, pieces, x, (min, max), channels_last)


TABLE: dict[Any, Callable] = {
    getattr(torch.ops.linscope, function.__name__).default: function
    for function in (
        relu_frozen,
        clamp_frozen,
        reference.gate_frozen,
        reference.instance_norm_frozen,
    )
}


def _register() -> None:
    from torch._inductor.decomposition import decompositions

    decompositions.update(TABLE)


when_imported("torch._inductor.decomposition", _register)
