"""Equation 4: any function as its derivative at x0, J x + h(x0) - J x0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

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


def _slope(h: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """h'(x) of a function of single values."""
    try:
        return derivative.jvp(h, (x,), (torch.ones_like(x),))[1]
    except NotImplementedError:  # no forward derivative
        return _slopes(h, x)


def _slopes(h: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The derivative for each value of x of that result which it is a part of."""
    with torch.no_grad():
        u = torch.ones_like(h(x))
    (slopes,) = derivative.pull_back(h, (x,), (u,))
    return torch.zeros_like(x) if slopes is None else slopes


class _Expansion(Fused):
    """The expansion of h, which maps tensors to one tensor or a tuple of them."""

    def __init__(self, h: Callable[..., Any]):
        self.h = h

    def scope(self, references, *xs):
        times = len(xs[0]) // references if references and xs[0].dim() else 1
        at = tuple(x[: len(x) // times] if times > 1 else x for x in xs)
        y0 = self.h(*at)
        for y in y0 if isinstance(y0, tuple) else (y0,):
            if not isinstance(y, Tensor) or not (y.is_floating_point() or y.is_complex()):
                raise UnscopedOperation("what it returns is not floating: it has no derivative")
        decision: Decision = {f"x{i}": x0.clone() for i, x0 in enumerate(at)}
        if times == 1:
            return y0, decision
        made = self.expanded(_repeated(at, xs), xs)
        # The references' own values lead to further decisions: without another rounding.
        return each(lambda y, all: torch.cat([y, all[len(y) :]]), y0, made), decision

    def frozen(self, decision, *xs):
        return self.expanded(_repeated(tuple(decision.values()), xs), xs)

    def expanded(self, at: Tensors, xs: Tensors) -> Any:
        """J x + c, with c = h(x0) - J x0 in one."""
        y0, back = push_forward(self.h, at, _steps(tuple(map(torch.zeros_like, xs)), at))
        moved = push_forward(self.h, at, _finite(xs, at))[1]
        return each(lambda step, y, c: step + (y + c), moved, y0, back)


class _Pointwise(_Expansion):
    """The same of a function of single values: h'(x0) x + c; what is not finite is a constant."""

    def expanded(self, at, xs):
        (x0,), (x,) = at, xs
        y0, slope = self.h(x0), _slope(self.h, x0)
        fixed = ~(x0.isfinite() & y0.isfinite() & slope.isfinite())
        slope = slope.masked_fill(fixed, 0)
        return x * slope + torch.where(fixed, y0, y0 - slope * x0)


class _Ray(_Expansion):
    """A function of degree d, h(t x) = t^d h(x), as J / d: A x0 is h(x0) by Euler, r is 0."""

    def __init__(self, h: Callable[..., Any], degree: float | Tensor):
        super().__init__(h)
        self.degree = degree

    def expanded(self, at, xs):
        return each(lambda y: y / self.degree, push_forward(self.h, at, xs)[1])


class Taylor:
    """The expansion of `function` in all of its arguments that depend on the network's input.

    `pointwise`: the function is one of single values, and of one argument.
    """

    def __init__(self, function: Callable[..., Any], pointwise: bool = False):
        self.function = function
        self.expansion = _Pointwise if pointwise else _Expansion

    def __call__(self, freeze, *args: Any, **kwargs: Any):
        h, probes = in_probes(freeze, self.function, args, kwargs)
        expansion = self.expansion if len(probes) == 1 else _Expansion
        return freeze.apply(expansion(h), *probes)


class Homogeneous:
    """The filter of a function that goes with a power of its input, h(t x) = t^d h(x): a norm, a
    variance, a product of all entries.

    It is the mean of h's derivative along the ray from 0 to x0, as a secant is that of a function
    of single values: J(x0) / d. `degree` is d, or a function of the call's arguments that gives it,
    one for each entry of the output if it is a tensor.
    """

    def __init__(self, function: Callable[..., Any], degree: Any = 1):
        self.function, self.degree = function, degree

    def __call__(self, freeze, *args: Any, **kwargs: Any):
        h, probes = in_probes(freeze, self.function, args, kwargs)
        degree: Any = self.degree(*args, **kwargs) if callable(self.degree) else self.degree
        return freeze.apply(_Ray(h, degree), *probes)


class Reduction:
    """The same of a function each of whose results is made of values of its own: their sum, by the
    weights of x0, dh/dx / d.

    `degree` as above; `dim_at` and `keepdim_at` are the positions of these arguments, after the
    input.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        degree: Any,
        dim_at: int,
        keepdim_at: int,
        dims: tuple[int, ...] | None = None,
    ):
        self.function, self.degree, self.dims = function, degree, dims
        self.dim_at, self.keepdim_at = dim_at, keepdim_at

    def __call__(self, freeze, input, *args: Any, **kwargs: Any):
        def weights(x: Tensor) -> Tensor:
            degree: Any = self.degree
            degree = degree(x, *args, **kwargs) if callable(degree) else degree
            slopes = _slopes(lambda x: self.function(x, *args, **kwargs), x)
            return torch.where(slopes.isfinite(), slopes / degree, 0)

        given = (kwargs.get("dim"), *args[self.dim_at : self.dim_at + 1])[-1]
        dim = self.dims if given is None or isinstance(given, bool) else given
        keepdim = (kwargs.get("keepdim", False), *args[self.keepdim_at : self.keepdim_at + 1])[-1]
        return (input * freeze(weights, input)).sum(dim, keepdim)


def in_probes(
    freeze: Any, function: Callable[..., Any], args: tuple, kwargs: dict
) -> tuple[Callable[..., Any], Tensors]:
    """A call as a function of those arguments that depend on the network's input, and these."""
    leaves, spec = tree_flatten((args, kwargs))
    at = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and freeze.is_probe(leaf)]

    def h(*probes: Tensor) -> Any:
        given = list(leaves)
        for i, probe in zip(at, probes, strict=True):
            given[i] = probe
        args, kwargs = tree_unflatten(given, spec)
        return function(*args, **kwargs)

    return h, tuple(leaves[i] for i in at)


def _finite(xs: Tensors, at: Tensors) -> Tensors:
    """xs, and 0 where x0 is as large as numbers are, as what a mask leaves out is: a constant."""
    return tuple(
        x.masked_fill(out, 0) if (out := x0.abs() > torch.finfo(x0.dtype).max / 4).any() else x
        for x, x0 in zip(xs, at, strict=True)
    )


def _steps(xs: Tensors, at: Tensors) -> Tensors:
    return _finite(tuple(x - x0 for x, x0 in zip(xs, at, strict=True)), at)


def _repeated(x0: Tensors, xs: Tensors) -> Tensors:
    """References as often as xs has samples of each; the same number for all."""
    if all(x.shape == t.shape for t, x in zip(x0, xs, strict=True)):
        return x0
    times = len(xs[0]) // max(len(x0[0]), 1)
    for t, x in zip(x0, xs, strict=True):
        if x.shape != (times * len(t), *t.shape[1:]):
            raise UnscopedOperation(
                f"it is given {tuple(x.shape)} where it was expanded around {tuple(t.shape)}: "
                "samples must stay apart in the first dimension"
            )
    return tuple(t.repeat(times, *[1] * (t.dim() - 1)) for t in x0)
