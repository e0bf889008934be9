"""Registers the operators of namespace `linscope` with torch: the compiled ones, or, where none
were built, reference.py; that stands in for the CPU's compiled loops, too, on a processor that
they are not for.

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
from .checks import checked, pool_sizes


def _load() -> bool:
    """Loads schemas and CUDA kernels; False where nothing was compiled."""
    try:
        importlib.import_module("linscope_cuda._C")
    except ModuleNotFoundError as error:
        if error.name != "linscope_cuda._C":
            raise
        return False
    return True


def _load_cpu() -> bool:
    """Loads the CPU's loops; False on a processor that they are not for: they need AVX2."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    if x86 and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX"):
        return False
    importlib.import_module("linscope_cuda._cpu")
    return True


COMPILED = _load()
CPU_COMPILED = COMPILED and _load_cpu()


def is_compiled(device: str | torch.device) -> bool:
    """Whether operators on this device are the compiled ones."""
    return COMPILED and (CPU_COMPILED or torch.device(device).type != "cpu")


def _stand_in() -> torch.library.Library:
    """The reference's operators as torch's, for every device or only for the CPU."""
    library = torch.library.Library("linscope", "IMPL" if COMPILED else "DEF")
    for functions, mutated in ((reference.OPERATORS, ()), (reference.IN_PLACE, ("x",))):
        for name, function in functions.items():
            if not COMPILED:
                schema = torch.library.infer_schema(function, mutates_args=mutated)
                library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
            key = "CPU" if COMPILED else "CompositeExplicitAutograd"
            library.impl(name, checked(name, function), key)
    return library


if not CPU_COMPILED:
    _library = _stand_in()

# ---- Fakes ----


def _empty(
    x: Tensor, shape: tuple, channels_last: bool, dtype: torch.dtype | None = None
) -> Tensor:
    last = reference.memory_format(channels_last, len(shape))
    return torch.empty(shape, dtype=dtype or x.dtype, device=x.device, memory_format=last)


def _packed(x: Tensor, references: int, bits: int) -> Tensor:
    row_bytes = (math.prod(x.shape[1:]) * bits + 7) // 8
    return x.new_empty((references, row_bytes), dtype=torch.uint8)


def _as(x: Tensor) -> Tensor:
    return _empty(x, tuple(x.shape), reference.is_channels_last(x))


def _planes(x: Tensor, references: int) -> Tensor:
    return x.new_empty((references, x.shape[1]), dtype=reference.wide_dtype(x.dtype))


def _max_pool2d_scope_fake(x, references, kernel, stride, padding, dilation, ceil_mode):
    size = pool_sizes(x.shape[2:], (kernel, stride, padding, dilation), ceil_mode)
    last = reference.is_channels_last(x)
    y = _empty(x, (*x.shape[:2], *size), last)
    code = reference.code_dtype(kernel)
    return y, _empty(x, (references, x.shape[1], *size), last, code)


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
    torch.library.register_fake(f"linscope::{_name}", checked(_name, _FAKES[_name]))
    torch.library.register_vmap(f"linscope::{_name}", _vmap_rule(_name))

for _name in reference.IN_PLACE:
    torch.library.register_fake(f"linscope::{_name}", checked(_name, lambda *args: None))
