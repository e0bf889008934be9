"""Smooth switches."""

from __future__ import annotations

import operator
from functools import reduce

import torch
from torch import Tensor

from .. import reference
from ..checks import batch, beside, rows
from ..empty import empty, like
from ..operator import Operator

_ops = torch.ops.linscope

# ---- Checks ----


def _kind(op: str, kind: int) -> None:
    if not 0 <= kind < len(reference.GATES):
        raise ValueError(f"{op}: no gate has the number {kind}, there are {len(reference.GATES)}")


def check_gate_scope(x, references, kind):
    batch("gate_scope", x, references)
    _kind("gate_scope", kind)


def check_gate_frozen(x, gate, shift):
    references = rows("gate_frozen", "gate", gate)
    batch("gate_frozen", x, references)
    beside("gate_frozen", x, "gate", gate, (references, *x.shape[1:]), x.dtype)


def check_gate_scope_backward(grad_y, x, references, kind):
    batch("gate_scope_backward", x, references)
    _kind("gate_scope_backward", kind)
    beside("gate_scope_backward", x, "grad_y", grad_y, x.shape, x.dtype)


# ---- Fakes ----


def _scope(x, references, kind):
    last = reference.is_channels_last(x)
    return like(x), empty(x, (references, *x.shape[1:]), last)


# ---- Derivatives ----


class GateScope:
    def save(self, ctx, inputs, output):
        x, *ctx.constants = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    def backward(self, ctx, grad_y):
        return (_ops.gate_scope_backward(grad_y, *ctx.saved_tensors, *ctx.constants),)

    def jvp(self, ctx, x_t, *_):
        (x,), (references, kind) = ctx.saved_tensors, ctx.constants
        return reference.gate_scope_jvp(x, x_t, references, kind)


class GateFrozen:
    """Linear in x, and in the gate."""

    def save(self, ctx, inputs, output):
        x, gate, _ = inputs
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, gate)
        ctx.save_for_forward(x, gate)

    def backward(self, ctx, grad_y):
        x, gate = ctx.saved_tensors
        grad_x = _ops.gate_frozen(grad_y, gate, 0.0)
        return grad_x, None if x is None else _per_reference(grad_y, x, gate)

    def jvp(self, ctx, x_t, gate_t, _):
        x, gate = ctx.saved_tensors
        moved = [(a, b) for a, b in ((x_t, gate), (x, gate_t)) if a is not None and b is not None]
        return reduce(operator.add, (_ops.gate_frozen(a, b, 0.0) for a, b in moved))


def _per_reference(grad_y: Tensor, x: Tensor, gate: Tensor) -> Tensor:
    wide, references = reference.wide_dtype(x.dtype), gate.shape[0]
    return reference.by_reference(grad_y.to(wide) * x.to(wide), references).sum(0).to(gate.dtype)


# ---- Entries ----

ENTRIES = [
    Operator(
        reference.gate_scope,
        check=check_gate_scope,
        fake=_scope,
        arguments="xR.",
        results="xd",
        derivative=GateScope(),
    ),
    Operator(
        reference.gate_frozen,
        check=check_gate_frozen,
        fake=lambda x, gate, shift: like(x),
        arguments="xd.",
        results="x",
        derivative=GateFrozen(),
        decomposition=reference.gate_frozen,
        sharding="elements",
    ),
    Operator(
        reference.gate_scope_backward,
        check=check_gate_scope_backward,
        fake=lambda grad_y, x, references, kind: like(x),
        arguments="xxR.",
        results="x",
    ),
]
