"""Derivatives of functions at a point, applied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]


def push_forward(h: Callable[..., Any], at: Tensors, tangents: Tensors) -> tuple[Any, Any]:
    """h(at) and J(at) tangents; where torch has no forward derivative, by way of two backward ones.

    RuntimeError where it has neither.
    """
    try:
        y, moved, *_ = torch.func.jvp(h, at, tangents)
        return y, moved
    except NotImplementedError:  # what torch raises for want of a formula
        pass
    y, pull_back, *_ = torch.func.vjp(h, *at)
    return y, torch.func.vjp(pull_back, each(torch.zeros_like, y))[1](tangents)[0]


def each(f: Callable[..., Tensor], *ys: Any) -> Any:
    """f of one tensor of each, or of those at one place of each tuple."""
    return tuple(map(f, *ys)) if isinstance(ys[0], tuple) else f(*ys)
