"""Frozen operators in plain torch, for compilers: so a compiled program fuses them with what stands
beside them.

torch.compile(backend="inductor") knows them; other compilers take `TABLE`, as in
`exported_program.run_decompositions(TABLE)`. Pooling and the scopes stay single kernels: a gather,
a transpose without atomics, and the packing of decisions are what they are written for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from . import (
    _native,  # noqa: F401  registers torch.ops.linscope
    reference,
)
from ._when_imported import when_imported

_PACKED = reference.relu_frozen, reference.clamp_frozen
_ELEMENTWISE = reference.gate_frozen, reference.instance_norm_frozen

TABLE: dict[Any, Callable] = {
    getattr(torch.ops.linscope, function.__name__).default: function
    for function in (*_PACKED, *_ELEMENTWISE)
}


def _but_on_cpu(function: Callable) -> Callable:
    """On the CPU, inductor reads packed bits one by one: fused, a ReLU took 6 times the kernel's
    time and a clamp 3 times, where a gate took half of it.
    """

    def decomposition(x, *args):
        return NotImplemented if x.device.type == "cpu" else function(x, *args)

    return decomposition


def _register() -> None:
    from torch._inductor.decomposition import decompositions

    for op, function in TABLE.items():
        decompositions[op] = _but_on_cpu(function) if function in _PACKED else function


when_imported("torch._inductor.decomposition", _register)
