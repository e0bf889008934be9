"""A product of a frozen network to torch's own transforms: a linear function of its probes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd import Function

Product = Callable[[Tensor], Tensor]


class _Linear(Function):
    """A product whose derivative is the other one, in both modes; more probes under vmap."""

    @staticmethod
    def forward(x: Tensor, forward: Product, backward: Product) -> Tensor:
        return forward(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.products = inputs[1:]

    @staticmethod
    def backward(ctx, *grads):
        forward, backward = ctx.products
        return _Linear.apply(grads[0], backward, forward), None, None

    @staticmethod
    def jvp(ctx, *tangents):
        return _Linear.apply(tangents[0], *ctx.products)

    @staticmethod
    def vmap(info, in_dims, x: Tensor, forward: Product, backward: Product):
        x = x.movedim(in_dims[0], 0)
        y = _Linear.apply(x.flatten(0, 1), forward, backward)
        return y.unflatten(0, x.shape[:2]), 0


def linear(x: Tensor, forward: Product, backward: Product) -> Tensor:
    """forward(x), with `backward` for its transpose where somebody differentiates."""
    followed = x.requires_grad and torch.is_grad_enabled()
    if followed or is_functorch_wrapped_tensor(x):
        return _Linear.apply(x, forward, backward)
    return forward(x)
