"""Equation 4: any function as its derivative at x0, J x + h(x0) - J x0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .entry import Decision, Fused


class _Derivative(Function):
    """J(x0) applied to tangents; keeps x0 alone."""

    @staticmethod
    def forward(ctx, h, at, *tangents):
        ctx.h = h
        ctx.save_for_backward(*at)
        return torch.func.jvp(h, at, tangents)[1]

    @staticmethod
    def backward(ctx, *grads):
        pull_back = torch.func.vjp(ctx.h, *ctx.saved_tensors)[1]
        return None, None, *pull_back(*grads)


def _for_all(x0: Tensor, samples: int) -> Tensor:
    return x0.repeat(samples // len(x0), *[1] * (x0.dim() - 1))


class _Expansion(Fused):
    def __init__(self, h: Callable[..., Tensor]):
        self.h = h

    def scope(self, references, *xs):
        at = tuple(x[:references] for x in xs)
        y0, samples = self.h(*at), len(xs[0])
        decision: Decision = {f"x{i}": x0.clone() for i, x0 in enumerate(at)}
        if samples == references:
            return y0, decision
        at = tuple(_for_all(x0, samples) for x0 in at)
        steps = tuple(x - x0 for x, x0 in zip(xs, at, strict=True))
        moved = torch.func.jvp(self.h, at, steps)[1]
        return _for_all(y0, samples) + moved, decision

    def frozen(self, decision, affine, *xs):
        x0 = tuple(decision.values())
        at = tuple(_for_all(t, len(xs[0])) for t in x0)
        y = _Derivative.apply(self.h, at, *xs)
        if not affine:
            return y
        value = torch.func.jvp(self.h, x0, x0)
        return y + _for_all(value[0] - value[1], len(xs[0]))


class Taylor:
    """The expansion of `function` in all of its arguments that depend on the network's input."""

    def __init__(self, function: Callable[..., Tensor]):
        self.function = function

    def __call__(self, freeze, *args: Any, **kwargs: Any):
        at = [i for i, a in enumerate(args) if freeze.is_probe(a)]
        named = [k for k, v in kwargs.items() if freeze.is_probe(v)]

        def h(*probes: Tensor) -> Tensor:
            given = list(args)
            for i, probe in zip(at, probes, strict=False):
                given[i] = probe
            by_name = dict(zip(named, probes[len(at) :], strict=True))
            return self.function(*given, **{**kwargs, **by_name})

        return freeze.apply(_Expansion(h), *(args[i] for i in at), *(kwargs[k] for k in named))
