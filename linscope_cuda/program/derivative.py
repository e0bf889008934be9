"""Derivatives of functions at a point, applied."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

Tensors = tuple[Tensor, ...]


@cache
def load_forward_derivatives() -> None:
    """What torch imports for its first one, without the warning that torch.jit's days are over."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        importlib.import_module("torch._decomp.decompositions_for_jvp")


def jvp(h: Callable[..., Any], at: Tensors, tangents: Tensors) -> Any:
    """torch.func.jvp: h(at) and J(at) tangents."""
    load_forward_derivatives()
    return torch.func.jvp(h, at, tangents)


def push_forward(h: Callable[..., Any], at: Tensors, tangents: Tensors) -> tuple[Any, Any]:
    """h(at) and J(at) tangents; where torch has no forward derivative, by way of two backward ones.

    RuntimeError where it has neither.
    """
    try:
        y, moved, *_ = jvp(h, at, tangents)
        return y, moved
    except NotImplementedError:  # what torch raises for want of a formula
        pass
    if _followed(at) or any(map(is_functorch_wrapped_tensor, at)):
        y, back, *_ = torch.func.vjp(h, *at)
        return y, torch.func.vjp(back, each(torch.zeros_like, y))[1](tangents)[0]
    return _by_two_backwards(h, at, tangents)


def _by_two_backwards(h: Callable[..., Any], at: Tensors, tangents: Tensors) -> tuple[Any, Any]:
    """J^T w is linear in w, and its own transpose is J."""
    with torch.enable_grad():
        xs = tuple(x.detach().requires_grad_() for x in at)
        y = h(*xs)
        ws = tuple(torch.zeros_like(part, requires_grad=True) for part in _listed(y))
        back = torch.autograd.grad(_listed(y), xs, ws, create_graph=True, materialize_grads=True)
        moved = torch.autograd.grad(back, ws, tangents, materialize_grads=True)
    return each(Tensor.detach, y), moved if isinstance(y, tuple) else moved[0]


def pull_back(h: Callable[..., Any], at: Tensors, us: Tensors) -> tuple[Tensor | None, ...]:
    """J(at)^T us, None for what h does not depend on; a graph leads to `at` where it has one.

    RuntimeError where torch has no derivative.
    """
    if any(map(is_functorch_wrapped_tensor, at)):
        return torch.func.vjp(lambda *xs: _listed(h(*xs)), *at)[1](us)
    # Not torch.func.vjp, with which torch imports its compiler: a second, and 170 MB.
    followed = _followed(at)
    with torch.enable_grad():
        xs = tuple(
            x.view_as(x) if followed and x.requires_grad else x.detach().requires_grad_()
            for x in at
        )
        pairs = [(y, u) for y, u in zip(_listed(h(*xs)), us, strict=True) if y.requires_grad]
        if not pairs:
            return (None,) * len(xs)
        ys, us = zip(*pairs, strict=True)
        return torch.autograd.grad(ys, xs, us, create_graph=followed, allow_unused=True)


def _followed(at: Tensors) -> bool:
    """Whether somebody differentiates what is made of these."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in at)


def _listed(ys: Any) -> Tensors:
    return tuple(ys) if isinstance(ys, tuple | list) else (ys,)


def each(f: Callable[..., Tensor], *ys: Any) -> Any:
    """f of one tensor of each, or of those at one place of each tuple."""
    return tuple(map(f, *ys)) if isinstance(ys[0], tuple) else f(*ys)
