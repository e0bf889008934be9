"""Frozen operators in plain torch, for compilers: so a compiled program fuses them with what stands
beside them.

torch.compile(backend="inductor") knows them; other compilers take `TABLE`, as in
`exported_program.run_decompositions(TABLE)`. Pooling and the scopes stay single kernels: a gather,
a transpose without atomics, and the packing of decisions are what they are written for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import native as _native  # noqa: F401  registers torch.ops.linscope
from .table import OPERATORS
from .when_imported import when_imported

TABLE: dict[Any, Callable] = {
    operator.overload: operator.decomposition
    for operator in OPERATORS.values()
    if operator.decomposition
}


def _register() -> None:
    from torch._inductor.decomposition import decompositions

    decompositions.update(TABLE)


when_imported("torch._inductor.decomposition", _register)
