"""What a derivative says, and the one of all operators that are linear in x.

Decisions are constants: a scope's derivative is that of its y, in full, also through the decision
where that is smooth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

_ops = torch.ops.linscope


class Derivative(Protocol):
    """What is kept of a call, and the products with the derivative and with its transpose. An
    argument that does not move has the tangent None.
    """

    def save(self, ctx: Any, inputs: tuple, output: Any) -> None: ...

    def backward(self, ctx: Any, grad_y: Tensor) -> tuple: ...

    def jvp(self, ctx: Any, *tangents: Any, **_: Any) -> Tensor: ...


class Linear(NamedTuple):
    """The derivative is the frozen operator `applied`, its transpose is `transposed`."""

    applied: str
    transposed: str
    constants: Callable[..., tuple]  # of both, from the operator's arguments

    def save(self, ctx, inputs, output):
        decision = output[1] if isinstance(output, tuple) else inputs[1]
        ctx.save_for_backward(decision)
        ctx.save_for_forward(decision)
        ctx.applied, ctx.transposed = self.constants(*inputs)

    def backward(self, ctx, grad_y):
        return (getattr(_ops, self.transposed)(grad_y, *ctx.saved_tensors, *ctx.transposed),)

    def jvp(self, ctx, x_t, *_):
        return getattr(_ops, self.applied)(x_t, *ctx.saved_tensors, *ctx.applied)


def moves(t: Any) -> bool:
    """Whether t has a tangent at the level of forward mode that runs."""
    floating = isinstance(t, Tensor) and t.is_floating_point()
    return floating and torch._VF._unpack_dual(t, level=0)[1] is not None  # type: ignore
