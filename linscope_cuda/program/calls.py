"""How a step's function is called: quickly, and, where it may, over its argument's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..operators import functions as ops

aten = torch.ops.aten
linscope = torch.ops.linscope


def _over(write: Any, make: Any) -> Callable[..., Tensor]:
    """A frozen operator in x's own memory, where that is dense in the decision's order."""

    def call(x: Tensor, decision: Tensor, *options: Any) -> Tensor:
        if not ops.is_dense(x, options[-1]):
            return make(x, decision, *options)
        write(x, decision, *options)
        return x

    return call


# torch's own functions take their arguments from Python faster than its operators do.
_QUICK: dict[Any, Callable[..., Any]] = {
    aten.add.Tensor: torch.add,
    aten.bmm.default: torch.bmm,
    aten.cat.default: torch.cat,
    aten.clone.default: torch.clone,
    aten.convolution.default: torch.convolution,
    aten.div.Scalar: torch.div,
    aten.mean.dim: torch.mean,
    aten.mm.default: torch.mm,
    aten.mul.Tensor: torch.mul,
    aten.neg.default: torch.neg,
    aten.permute.default: torch.permute,
    aten.reshape.default: torch.reshape,
    aten.select.int: torch.select,
    aten.sub.Tensor: torch.sub,
    aten.transpose.int: torch.transpose,
    aten.view.default: Tensor.view,
}

WRITING: dict[Any, Callable[..., Tensor]] = {
    aten.add.Tensor: Tensor.add_,
    aten.mul.Tensor: Tensor.mul_,
    linscope.relu_frozen.default: _over(
        linscope.relu_frozen_.default, linscope.relu_frozen.default
    ),
    linscope.clamp_frozen.default: _over(
        linscope.clamp_frozen_.default, linscope.clamp_frozen.default
    ),
}


def called(function: Any, writes: bool) -> Callable[..., Any]:
    """The function of a step; `writes`: it may leave its result in its first argument."""
    if writes and function in WRITING:
        return WRITING[function]
    return _QUICK.get(function) or function
