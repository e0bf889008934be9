"""Frozen operators on torch's DTensor, where samples or channels lie on several devices.

Probe j belongs to reference j mod references. So samples may be split where every device gets whole
rounds of the references, with the decision on all of them; or beside the decision, where every
sample has its own reference. A gate has an element for each of x's, and is split with it along any
other dimension; packed bits cannot be. Everything else is replicated first. For a scope there is no
rule, and DTensor says so: its references lie on one device, and decide for all.
"""

from __future__ import annotations

import torch

from . import native as _native  # noqa: F401  registers torch.ops.linscope
from .when_imported import when_imported

_ops = torch.ops.linscope

# Each with the number of its constants.
_PACKED = {_ops.relu_frozen.default: 2, _ops.clamp_frozen.default: 3}
_ELEMENTWISE = {_ops.gate_frozen.default: 1}


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

    for elementwise, operators in ((False, _PACKED), (True, _ELEMENTWISE)):
        for op, constants in operators.items():
            register_sharding(op)(rule(elementwise, constants))


when_imported("torch.distributed.tensor", _register)
