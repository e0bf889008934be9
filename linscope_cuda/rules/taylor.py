"""Equation 4: any function as its derivative at x0, J x + h(x0) - J x0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..program import derivative
from ..program.derivative import each
from .entry import Decision, Fused, UnscopedOperation

Tensors = tuple[Tensor, ...]


def push_forward(h: Callable[..., Any], at: Tensors, tangents: Tensors) -> tuple[Any, Any]:
    """h(at) and J(at) tangents; UnscopedOperation where torch has no derivative of h."""
    try:
        return derivative.push_forward(h, at, tangents)
    except RuntimeError as error:
        raise UnscopedOperation(f"torch has no derivative to expand it by: {error}") from error


class _Expansion(Fused):
    """The expansion of h, which maps tensors to one tensor or a tuple of them."""

    def __init__(self, h: Callable[..., Any]):
        self.h = h

    def scope(self, references, *xs):
        times = len(xs[0]) // references
        at = tuple(x[: len(x) // times] for x in xs)
        y0 = self.h(*at)
        for y in y0 if isinstance(y0, tuple) else (y0,):
            if not isinstance(y, Tensor) or not y.is_floating_point():
                raise UnscopedOperation("what it returns is not floating: it has no derivative")
        decision: Decision = {f"x{i}": x0.clone() for i, x0 in enumerate(at)}
        if times == 1:
            return y0, decision
        at = _repeated(at, xs)
        moved = push_forward(self.h, at, _steps(xs, at))[1]
        return each(lambda y, step: _repeat(y, times) + step, y0, moved), decision

    def frozen(self, decision, *xs):
        """J x + c, with c = h(x0) - J x0 in one."""
        at = _repeated(tuple(decision.values()), xs)
        y0, back = push_forward(self.h, at, _steps(tuple(map(torch.zeros_like, xs)), at))
        moved = push_forward(self.h, at, _finite(xs, at))[1]
        return each(lambda step, y, c: step + (y + c), moved, y0, back)


class Taylor:
    """The expansion of `function` in all of its arguments that depend on the network's input."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, freeze, *args: Any, **kwargs: Any):
        at = [i for i, a in enumerate(args) if freeze.is_probe(a)]
        named = [k for k, v in kwargs.items() if freeze.is_probe(v)]

        def h(*probes: Tensor) -> Any:
            given = list(args)
            for i, probe in zip(at, probes, strict=False):
                given[i] = probe
            by_name = dict(zip(named, probes[len(at) :], strict=True))
            return self.function(*given, **{**kwargs, **by_name})

        return freeze.apply(_Expansion(h), *(args[i] for i in at), *(kwargs[k] for k in named))


def _finite(xs: Tensors, at: Tensors) -> Tensors:
    """xs, and 0 where x0 is infinite, as what a mask leaves out is: a constant."""
    return tuple(
        x.masked_fill(out, 0) if (out := x0.isinf()).any() else x
        for x, x0 in zip(xs, at, strict=True)
    )


def _steps(xs: Tensors, at: Tensors) -> Tensors:
    return _finite(tuple(x - x0 for x, x0 in zip(xs, at, strict=True)), at)


def _repeat(x0: Tensor, times: int) -> Tensor:
    return x0.view_as(x0) if times == 1 else x0.repeat(times, *[1] * (x0.dim() - 1))


def _repeated(x0: Tensors, xs: Tensors) -> Tensors:
    """References as often as xs has samples of each; the same number for all."""
    times = len(xs[0]) // max(len(x0[0]), 1)
    for t, x in zip(x0, xs, strict=True):
        if x.shape != (times * len(t), *t.shape[1:]):
            raise UnscopedOperation(
                f"it is given {tuple(x.shape)} where it was expanded around {tuple(t.shape)}: "
                "samples must stay apart in the first dimension"
            )
    return tuple(_repeat(t, times) for t in x0)
