"""torch.func.vmap: a batch of calls is one call.

With one decision for all, its calls are one with more samples. Otherwise they are one with as many
times the references.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import reference
from .operator import Operator
from .table import OPERATORS


def vmap_rule(operator: Operator) -> Callable:
    """What torch.library.register_vmap takes."""
    if operator.in_place:
        return _in_place(operator)
    op, inputs = operator.overload, operator.arguments

    def rule(info, in_dims, *args):
        dims = tuple(in_dims[: len(args)])
        batched = {role for role, dim in zip(inputs, dims, strict=True) if dim is not None}
        if "w" in batched:
            return _each(op, info, dims, args)
        if operator.frozen and "d" not in batched:
            x, *constants = args
            return _with_more_samples(op, x.movedim(dims[0], 0), constants), 0
        return _with_more_references(operator, info, dims, args)

    return rule


def _with_more_samples(op: Any, x: Tensor, constants: tuple | list) -> Tensor:
    """Probe j stays one of reference j mod references: x is folded as it lies in memory."""
    return op(x.flatten(0, 1), *constants).unflatten(0, x.shape[:2])


def _with_more_references(operator: Operator, info: Any, dims: tuple, args: tuple):
    size, named = info.batch_size, list(zip(operator.arguments, args, dims, strict=True))
    references = next((a for role, a, _ in named if role == "R"), None)
    if references is None:
        rows, dim = next((a, d) for role, a, d in named if role == "d" and a is not None)
        references = rows.shape[0] if dim is None else rows.movedim(dim, 0).shape[1]

    def fold(role, a, dim):
        if role == "R":
            return a * size
        if not isinstance(a, Tensor) or role not in "xd":
            return a
        a = a.expand(size, *a.shape) if dim is None else a.movedim(dim, 0)
        if role == "d":
            return a.flatten(0, 1)
        probes = a.shape[1] // references
        a = a.reshape(size, probes, references, *a.shape[2:])
        return a.movedim(0, 1).flatten(0, 2)

    def unfold(role, a):
        a = a.reshape(-1, size, references, *a.shape[1:])
        return a[0] if role == "d" else a.movedim(1, 0).flatten(1, 2)

    results = operator.overload(*(fold(*n) for n in named))
    if isinstance(results, Tensor):
        return unfold(operator.results, results), 0
    unfolded = tuple(unfold(r, a) for r, a in zip(operator.results, results, strict=True))
    return unfolded, (0,) * len(unfolded)


def _each(op: Any, info: Any, dims: tuple, args: tuple):
    """One call per element of the batch: for per-channel parameters that differ within it."""

    def element(i: int):
        return op(*(a if d is None else a.select(d, i) for a, d in zip(args, dims, strict=True)))

    results = [element(i) for i in range(info.batch_size)]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    return tuple(torch.stack(r) for r in zip(*results, strict=True)), (0,) * len(results[0])


def _in_place(operator: Operator) -> Callable:
    """x is written where it lies; through a copy where its samples are not dense there, or where
    decisions differ within the batch.
    """
    op, frozen = operator.overload, OPERATORS[operator.name[:-1]]
    copying = vmap_rule(frozen)

    def rule(info, in_dims, *args):
        x, *constants = args
        if in_dims[0] is None:
            raise RuntimeError(
                f"{operator.name}: x is not batched as its decision is, and cannot be written in "
                f"place; {frozen.name} can"
            )
        x, channels_last = x.movedim(in_dims[0], 0), constants[-1]
        samples = x.flatten(0, 1)
        adjacent = x.shape[1] == 1 or x.stride(0) == x.shape[1] * x.stride(1)
        if in_dims[1] is None and adjacent and reference.is_dense(samples, channels_last):
            op(samples, *constants)
        else:
            x.copy_(copying(info, in_dims, *args)[0])
        return None, None

    return rule
