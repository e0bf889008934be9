"""Registers the operators of namespace `linscope` with torch: the compiled ones, or, where none
were built, reference.py.

Also what torch must know of every operator beyond its kernels: shapes without data (fakes) and
batching (vmap).
"""

from __future__ import annotations

import importlib
import math
import platform
from typing import Any

import torch
from torch import Tensor

from . import reference


def _load() -> bool:
    """Loads the compiled operators; False where there are none, or none for this processor."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    if x86 and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX"):
        return False  # they were compiled for AVX2
    try:
        importlib.import_module("linscope_cuda._C")
    except ModuleNotFoundError as error:
        if error.name != "linscope_cuda._C":
            raise
        return False
    return True


COMPILED = _load()

if not COMPILED:
    _library = torch.library.Library("linscope", "DEF")
    _TAGS = (torch.Tag.pt2_compliant_tag,)
    for _name, _function in reference.OPERATORS.items():
        _schema = torch.library.infer_schema(_function, mutates_args=())
        _library.define(_name + _schema, tags=_TAGS)
        _library.impl(_name, _function, "CompositeExplicitAutograd")

    for _name, _function in reference.IN_PLACE.items():
        _library.define(
            _name + torch.library.infer_schema(_function, mutates_args=("x",)), tags=_TAGS
        )
        _library.impl(_name, _function, "CompositeExplicitAutograd")

# ---- Fakes ----


def _empty(
    x: Tensor, shape: tuple, channels_last: bool, dtype: torch.dtype | None = None
) -> Tensor:
    last = reference.memory_format(channels_last)
    return torch.empty(shape, dtype=dtype or x.dtype, device=x.device, memory_format=last)


def _packed(x: Tensor, references: int, bits: int) -> Tensor:
    row_bytes = (math.prod(x.shape[1:]) * bits + 7) // 8
    return x.new_empty((references, row_bytes), dtype=torch.uint8)


def _as(x: Tensor) -> Tensor:
    return _empty(x, tuple(x.shape), reference.is_channels_last(x))


def _planes(x: Tensor, references: int) -> Tensor:
    return x.new_empty((references, x.shape[1]), dtype=reference.wide_dtype(x.dtype))


def pool_size(size, kernel, stride, padding, dilation, ceil_mode):
    """Outputs of a pool along one dimension; a window that starts behind the image is left out, as
    in torch.
    """
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    out = (span + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (out - 1) * stride >= size + padding:
        out -= 1
    return out


def _max_pool2d_scope_fake(x, references, kernel, stride, padding, dilation, ceil_mode):
    height, width = (
        pool_size(x.shape[2 + d], kernel[d], stride[d], padding[d], dilation[d], ceil_mode)
        for d in (0, 1)
    )
    last = reference.is_channels_last(x)
    code = torch.uint8 if kernel[0] * kernel[1] <= 256 else torch.int32
    y = _empty(x, (*x.shape[:2], height, width), last)
    return y, _empty(x, (references, x.shape[1], height, width), last, code)


def _gate_scope_fake(x, references, kind):
    last = reference.is_channels_last(x)
    return _as(x), _empty(x, (references, *x.shape[1:]), last)


_FAKES = {
    "relu_scope": lambda x, references, slope, last: (
        _empty(x, tuple(x.shape), last),
        _packed(x, references, 1),
    ),
    "relu_frozen": lambda x, decision, slope, last: _empty(x, tuple(x.shape), last),
    "clamp_scope": lambda x, references, min, max, last: (
        _empty(x, tuple(x.shape), last),
        _packed(x, references, 2),
    ),
    "clamp_frozen": lambda x, decision, min, max, last: _empty(x, tuple(x.shape), last),
    "gate_scope": _gate_scope_fake,
    "gate_frozen": lambda x, gate, shift: _as(x),
    "gate_scope_backward": lambda grad_y, x, references, kind: _as(x),
    "max_pool2d_scope": _max_pool2d_scope_fake,
    "max_pool2d_frozen": lambda x, decision, *window: _empty(
        x, (*x.shape[:2], *decision.shape[2:]), reference.is_channels_last(x)
    ),
    "max_pool2d_frozen_transpose": lambda u, decision, size, *window: _empty(
        u, (*u.shape[:2], *size), reference.is_channels_last(u)
    ),
    "instance_norm_scope": lambda x, references, weight, bias, eps: (
        _as(x),
        _planes(x, references),
        _planes(x, references),
    ),
    "instance_norm_frozen": lambda x, mean, scale, shift: _as(x),
    "instance_norm_scope_backward": lambda grad_y, x, mean, rstd, weight: (
        _as(x),
        _planes(x, mean.shape[0]),
        _planes(x, mean.shape[0]),
    ),
}

# ---- Batching ----

# What each argument and result is: x samples, d one row per reference, R the number of references,
# w per channel, anything else a constant. A batch of calls is one call with as many times the
# references.
_ROLES = {
    "relu_scope": ("xR..", "xd"),
    "relu_frozen": ("xd..", "x"),
    "clamp_scope": ("xR...", "xd"),
    "clamp_frozen": ("xd...", "x"),
    "gate_scope": ("xR.", "xd"),
    "gate_frozen": ("xd.", "x"),
    "gate_scope_backward": ("xxR.", "x"),
    "max_pool2d_scope": ("xR.....", "xd"),
    "max_pool2d_frozen": ("xd....", "x"),
    "max_pool2d_frozen_transpose": ("xd.....", "x"),
    "instance_norm_scope": ("xRww.", "xdd"),
    "instance_norm_frozen": ("xddd", "x"),
    "instance_norm_scope_backward": ("xxddw", "xdd"),
}


def _batched(t: Tensor, dim: int | None, size: int) -> Tensor:
    return t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)


def _each(op: Any, info: Any, dims: tuple, args: tuple):
    """One call per element of the batch: for per-channel parameters that differ within it."""

    def element(i: int):
        return op(*(a if d is None else a.select(d, i) for a, d in zip(args, dims, strict=True)))

    results = [element(i) for i in range(info.batch_size)]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    return tuple(torch.stack(r) for r in zip(*results, strict=True)), (0,) * len(results[0])


def _vmap_rule(name: str):
    op = getattr(torch.ops.linscope, name).default
    inputs, outputs = _ROLES[name]

    def rule(info, in_dims, *args):
        dims = tuple(in_dims[: len(args)])
        named = list(zip(inputs, args, dims, strict=True))
        if any(role == "w" and dim is not None for role, _, dim in named):
            return _each(op, info, dims, args)
        size = info.batch_size
        references = next((a for role, a, _ in named if role == "R"), None)
        if references is None:
            rows, dim = next((a, d) for role, a, d in named if role == "d" and a is not None)
            references = rows.shape[0] if dim is None else rows.movedim(dim, 0).shape[1]

        def fold(role, a, dim):
            if role == "R":
                return a * size
            if not isinstance(a, Tensor) or role not in "xd":
                return a
            a = _batched(a, dim, size)
            if role == "d":
                return a.flatten(0, 1)
            probes = a.shape[1] // references
            a = a.reshape(size, probes, references, *a.shape[2:])
            return a.movedim(0, 1).flatten(0, 2)

        def unfold(role, a):
            a = a.reshape(-1, size, references, *a.shape[1:])
            return a[0] if role == "d" else a.movedim(1, 0).flatten(1, 2)

        results = op(*(fold(*n) for n in named))
        if isinstance(results, Tensor):
            return unfold(outputs, results), 0
        unfolded = tuple(unfold(r, a) for r, a in zip(outputs, results, strict=True))
        return unfolded, (0,) * len(outputs)

    return rule


for _name in reference.OPERATORS:
    torch.library.register_fake(f"linscope::{_name}", _FAKES[_name])
    torch.library.register_vmap(f"linscope::{_name}", _vmap_rule(_name))

for _name in reference.IN_PLACE:
    torch.library.register_fake(f"linscope::{_name}", lambda *args: None)
