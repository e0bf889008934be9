"""Differentiates the operators, so that no caller loses a derivative; and calls them.

Each gets a kernel under torch's key "Autograd", which reverse and forward mode, every level of
torch.func and the tracing of torch.compile all go through. (`torch.library.register_autograd` knows
reverse mode alone: with it, torch.func.jvp is silently 0.) The key comes below vmap's, so what is
batched (batching.py) is differentiated too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch._ops import OpOverload
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from . import native as _native  # noqa: F401  registers torch.ops.linscope
from .derivatives import Derivative, moves
from .operator import Operator
from .table import OPERATORS

# ---- The kernels under the key "Autograd" ----

_requires_grad = torch._C._any_requires_grad


def _differentiated(args: tuple) -> bool:
    return (torch.is_grad_enabled() and _requires_grad(*args)) or any(map(moves, args))


def _below(op: OpOverload, keyset: Any, args: tuple) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return op.redispatch(keyset & torch._C._after_autograd_keyset, *args)


def _function(op: OpOverload, rule: Derivative) -> type[_SingleLevelFunction]:
    """The rule as what torch's autograd runs. Its last argument is the dispatcher's keys."""
    count = len(op._schema.arguments) + 1

    class Function(_SingleLevelFunction):
        @staticmethod
        def forward(*args):
            # A Function turns both off, and with them the outer levels of torch.func.
            with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                return _below(op, args[-1], args[:-1])

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.set_materialize_grads(False)  # an argument that does not move has no tangent
            if isinstance(output, tuple):
                ctx.mark_non_differentiable(*output[1:])
            rule.save(ctx, inputs[:-1], output)

        @staticmethod
        def backward(ctx, grad_y, *_):
            grads = () if grad_y is None else rule.backward(ctx, grad_y)
            return *grads, *[None] * (count - len(grads))

        @staticmethod
        def jvp(ctx, *tangents):
            y_t, decisions = rule.jvp(ctx, *tangents[:-1]), len(op._schema.returns) - 1
            return (y_t, *[None] * decisions) if decisions else y_t

        @staticmethod
        def _compiled_autograd_key(ctx):
            return (ctx._autograd_function_id,)

    Function.__name__ = Function.__qualname__ = op._schema.name.split("::")[1]
    return Function


def _by_rule(op: OpOverload, rule: Derivative) -> Callable:
    function = _function(op, rule)

    def kernel(keyset, *args):
        if not _differentiated(args):
            return _below(op, keyset, args)
        with enable_single_level_autograd_function():
            return function.apply(*args, keyset)  # type: ignore[attr-defined]

    return kernel


def _by_reference(op: OpOverload, specification: Callable) -> Callable:
    """For the operators of a first derivative: the second is that of the specification."""

    def kernel(keyset, *args):
        return specification(*args) if _differentiated(args) else _below(op, keyset, args)

    return kernel


def _refusing(op: OpOverload, name: str) -> Callable:
    def kernel(keyset, *args):
        if _differentiated(args):
            raise RuntimeError(
                f"{name}: x is differentiated and cannot be written in place; {name[:-1]} can"
            )
        return _below(op, keyset, args)

    return kernel


def _counting(op: OpOverload) -> Callable:
    """Autograd must see that x was written: what it had saved of x is gone."""

    def kernel(keyset, x, *args):
        torch.autograd.graph.increment_version(x)
        with torch._C._AutoDispatchBelowADInplaceOrView():
            return op.redispatch(keyset & torch._C._after_ADInplaceOrView_keyset, x, *args)

    return kernel


def _kernel(operator: Operator) -> Callable:
    op, rule = operator.overload, operator.derivative
    if operator.in_place:
        return _refusing(op, operator.name)
    return _by_rule(op, rule) if rule else _by_reference(op, operator.reference)


_library = torch.library.Library("linscope", "IMPL")

for _name, _operator in OPERATORS.items():
    _library.impl(_name, _kernel(_operator), "Autograd", with_keyset=True)
    if _operator.in_place:
        _library.impl(_name, _counting(_operator.overload), "ADInplaceOrView", with_keyset=True)

# ---- Calls ----

_compiling = torch.compiler.is_compiling
_levels = torch._C._functorch.peek_interpreter_stack  # type: ignore[attr-defined]
_Below = torch._C._AutoDispatchBelowAutograd


def _plain(args: tuple) -> bool:
    """Whether nobody traces nor differentiates."""
    return not (
        _compiling()
        or (torch.is_grad_enabled() and _requires_grad(*args))
        or forward_ad._current_level >= 0
        or _levels() is not None
    )


def call(op: OpOverload, *args: Any) -> Any:
    """op(*args), past the kernel above where nobody differentiates: it is Python, and takes as long
    as a small operator.
    """
    if not _plain(args):
        return op(*args)
    with _Below():
        return op(*args)


def call_(op: OpOverload, x: Tensor, *args: Any) -> Tensor:
    """The same for an operator that writes x; returns x."""
    if not _plain((x, *args)) or x.is_inference():
        op(x, *args)
        return x
    torch.autograd.graph.increment_version(x)
    with torch._C._AutoDispatchBelowADInplaceOrView():
        op(x, *args)
    return x
