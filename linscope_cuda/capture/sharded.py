"""Models whose weights are divided among processes, with all of their weights."""

from __future__ import annotations

import copy
import sys

from torch import nn


def gathered(model: nn.Module) -> nn.Module:
    """The model without FSDP's wrappers: a copy with all weights, as they are now, on each rank,
    every one of which must ask; the model itself where there are none.

    A wrapped model's weights are there while it runs, and gone afterwards.
    """
    # Imported by who wraps a model; else nobody did.
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None:
        return model
    wrapper = fsdp.FullyShardedDataParallel
    if not any(isinstance(module, wrapper) for module in model.modules()):
        return model
    with wrapper.summon_full_params(model, writeback=False):
        return _unwrapped(model, wrapper)


def _unwrapped(module: nn.Module, wrapper: type[nn.Module]) -> nn.Module:
    if isinstance(module, wrapper):
        (inner,) = module.children()
        return _unwrapped(inner, wrapper)
    made = copy.copy(module)
    made._modules = {
        name: None if child is None else _unwrapped(child, wrapper)
        for name, child in module._modules.items()
    }
    made._parameters = {
        name: None if p is None else nn.Parameter(p.detach().clone(), requires_grad=p.requires_grad)
        for name, p in module._parameters.items()
    }
    return made
