"""Frozen operators on torch's DTensor, where samples or channels lie on several devices.

Probe j belongs to reference j mod references. So samples may be split where every device gets whole
rounds of the references, with the decision on all of them; or beside the decision, where every
sample has its own reference. A gate has an element for each of x's, and is split with it along any
other dimension; packed bits cannot be. Everything else is replicated first. For a scope there is no
rule, and DTensor says so: its references lie on one device, and decide for all.
"""

from __future__ import annotations

from . import native as _native  # noqa: F401  registers torch.ops.linscope
from .table import OPERATORS
from .when_imported import when_imported


def _register() -> None:
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.experimental import register_sharding

    def rule(elementwise: bool, constants: int):
        def acceptable(x, decision, *_):
            samples, references = x.shape[0], decision.shape[0]
            splits = [(Replicate(), Replicate())]
            if samples % (references * x.mesh.size()) == 0:
                splits.append((Shard(0), Replicate()))
            if samples == references:
                splits.append((Shard(0), Shard(0)))
            if elementwise:
                splits += [(Shard(d), Shard(d)) for d in range(1, x.ndim)]
            return [([of_x], [of_x, of_d, *[None] * constants]) for of_x, of_d in splits]

        return acceptable

    for operator in OPERATORS.values():
        if operator.sharding:
            constants = len(operator.arguments) - len("xd")
            elementwise = operator.sharding == "elements"
            register_sharding(operator.overload)(rule(elementwise, constants))


when_imported("torch.distributed.tensor", _register)
