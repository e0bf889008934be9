"""How each operator is differentiated, registered with the operators, so that no caller loses it.

Each gets a kernel under torch's key "Autograd", which reverse and forward mode, every level of
torch.func and the tracing of torch.compile all go through. (`torch.library.register_autograd` knows
reverse mode alone: with it, torch.func.jvp is silently 0.) The key comes below vmap's, so what is
batched (native.py) is differentiated too.

Decisions are constants: a scope's derivative is that of its y, in full, also through the decision
where that is smooth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch._ops import OpOverload
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from . import native as _native  # noqa: F401  registers torch.ops.linscope
from . import reference

_ops = torch.ops.linscope

# ---- The rules: what is kept, and the products with the derivative and with its transpose ----


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


def _relu(x, _, negative_slope, channels_last):
    return ((negative_slope, channels_last),) * 2


def _clamp(x, _, min, max, channels_last):
    return ((0.0, 0.0, channels_last),) * 2


def _max_pool2d(x, _, kernel, stride, padding, dilation, ceil_mode=None):
    window = kernel, stride, padding, dilation
    return window, (list(x.shape[2:]), *window)


def _max_pool2d_transpose(u, _, size, *window):
    return (size, *window), window


class GateScope:
    def save(self, ctx, inputs, output):
        x, *ctx.constants = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    def backward(self, ctx, grad_y):
        return (_ops.gate_scope_backward(grad_y, *ctx.saved_tensors, *ctx.constants),)

    def jvp(self, ctx, x_t, *_):
        (x,), (references, kind) = ctx.saved_tensors, ctx.constants
        return reference.gate_scope_jvp(x, x_t, references, kind)


class GateFrozen:
    """Linear in x, and in the gate."""

    def save(self, ctx, inputs, output):
        x, gate, _ = inputs
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, gate)
        ctx.save_for_forward(x, gate)

    def backward(self, ctx, grad_y):
        x, gate = ctx.saved_tensors
        grad_x = _ops.gate_frozen(grad_y, gate, 0.0)
        return grad_x, None if x is None else _per_reference(grad_y, x, gate)

    def jvp(self, ctx, x_t, gate_t, _):
        x, gate = ctx.saved_tensors
        moved = ((x_t, gate), (x, gate_t))
        return sum(_ops.gate_frozen(a, b, 0.0) for a, b in moved if a is not None and b is not None)


def _per_reference(grad_y: Tensor, x: Tensor, gate: Tensor) -> Tensor:
    wide, references = reference.wide_dtype(x.dtype), gate.shape[0]
    return reference.by_reference(grad_y.to(wide) * x.to(wide), references).sum(0).to(gate.dtype)


class InstanceNormScope:
    def save(self, ctx, inputs, output):
        x, ctx.references, weight, bias, ctx.eps = inputs
        ctx.dtypes = [None if p is None else p.dtype for p in (weight, bias)]
        ctx.save_for_backward(x, output[1], output[2], weight)
        ctx.save_for_forward(x, weight)

    def backward(self, ctx, grad_y):
        x, mean, rstd, weight = ctx.saved_tensors
        if torch.is_grad_enabled() or _moves(x):  # a second derivative: mean and rstd depend on x
            _, mean, rstd = reference.instance_norm_scope(x, ctx.references, None, None, ctx.eps)
        grad_x, *sums = _ops.instance_norm_scope_backward(grad_y, x, mean, rstd, weight)
        grad_bias, grad_weight = (s.sum(0) for s in sums)
        grads = zip((grad_weight, grad_bias), ctx.dtypes, strict=True)
        return grad_x, None, *(None if dtype is None else g.to(dtype) for g, dtype in grads)

    def jvp(self, ctx, x_t, _references, weight_t, bias_t, _eps):
        x, weight = ctx.saved_tensors
        return reference.instance_norm_scope_jvp(
            x, x_t, ctx.references, weight, weight_t, bias_t, ctx.eps
        )


class InstanceNormFrozen:
    def save(self, ctx, inputs, output):
        x, mean, scale, _ = inputs
        parameters = any(ctx.needs_input_grad[1:4])
        ctx.save_for_backward(x if parameters else None, mean, scale)
        ctx.save_for_forward(x, mean, scale)

    def backward(self, ctx, grad_y):
        x, mean, scale = ctx.saved_tensors
        grad_x = _ops.instance_norm_frozen(grad_y, None, scale, None)
        if x is None:
            return (grad_x,)
        wide, references = reference.wide_dtype(x.dtype), scale.shape[0]
        planes = (*scale.shape, -1)
        g = reference.by_reference(grad_y.to(wide), references)
        samples = reference.by_reference(x.to(wide), references)
        grad_mean, grad_shift = None, g.sum(0).reshape(planes).sum(2)
        grad_scale = (g * samples).sum(0).reshape(planes).sum(2)
        if mean is not None:
            grad_mean, grad_scale = -scale * grad_shift, grad_scale - mean * grad_shift
        grads = zip((grad_mean, grad_scale, grad_shift), ctx.needs_input_grad[1:4], strict=True)
        return grad_x, *(g if needed else None for g, needed in grads)

    def jvp(self, ctx, x_t, mean_t, scale_t, shift_t):
        x, mean, scale = ctx.saved_tensors
        terms = [] if x_t is None else [_ops.instance_norm_frozen(x_t, None, scale, None)]
        if scale_t is not None:
            terms.append(_ops.instance_norm_frozen(x, mean, scale_t, None))
        for offset in (None if mean_t is None else -mean_t * scale, shift_t):
            if offset is not None:
                terms.append(_ops.instance_norm_frozen(torch.zeros_like(x), None, scale, offset))
        return sum(terms)


RULES: dict[str, Any] = {
    "relu_scope": Linear("relu_frozen", "relu_frozen", _relu),
    "relu_frozen": Linear("relu_frozen", "relu_frozen", _relu),
    "clamp_scope": Linear("clamp_frozen", "clamp_frozen", _clamp),
    "clamp_frozen": Linear("clamp_frozen", "clamp_frozen", _clamp),
    "gate_scope": GateScope(),
    "gate_frozen": GateFrozen(),
    "max_pool2d_scope": Linear("max_pool2d_frozen", "max_pool2d_frozen_transpose", _max_pool2d),
    "max_pool2d_frozen": Linear("max_pool2d_frozen", "max_pool2d_frozen_transpose", _max_pool2d),
    "max_pool2d_frozen_transpose": Linear(
        "max_pool2d_frozen_transpose", "max_pool2d_frozen", _max_pool2d_transpose
    ),
    "instance_norm_scope": InstanceNormScope(),
    "instance_norm_frozen": InstanceNormFrozen(),
}

# ---- The kernels under the key "Autograd" ----


def _moves(t: Any) -> bool:
    """Whether t has a tangent at the level of forward mode that runs."""
    floating = isinstance(t, Tensor) and t.is_floating_point()
    return floating and torch._VF._unpack_dual(t, level=0)[1] is not None  # type: ignore


def _differentiated(args: tuple) -> bool:
    return (torch.is_grad_enabled() and _requires_grad(*args)) or any(map(_moves, args))


def _below(op: OpOverload, keyset: Any, args: tuple) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return op.redispatch(keyset & torch._C._after_autograd_keyset, *args)


def _function(op: OpOverload, rule: Any) -> type[_SingleLevelFunction]:
    """The rule as what torch's autograd runs. Its last argument is the dispatcher's keys."""
    count = len(op._schema.arguments) + 1

    class Derivative(_SingleLevelFunction):
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

    Derivative.__name__ = Derivative.__qualname__ = op._schema.name.split("::")[1]
    return Derivative


def _by_rule(op: OpOverload, rule: Any) -> Callable:
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


_library = torch.library.Library("linscope", "IMPL")

for _name, _specification in reference.OPERATORS.items():
    _op = getattr(_ops, _name).default
    _rule = RULES.get(_name)
    _kernel = _by_rule(_op, _rule) if _rule else _by_reference(_op, _specification)
    _library.impl(_name, _kernel, "Autograd", with_keyset=True)

for _name in reference.IN_PLACE:
    _op = getattr(_ops, _name).default
    _library.impl(_name, _refusing(_op, _name), "Autograd", with_keyset=True)
    _library.impl(_name, _counting(_op), "ADInplaceOrView", with_keyset=True)

# ---- Calls ----

_compiling = torch.compiler.is_compiling
_levels = torch._C._functorch.peek_interpreter_stack  # type: ignore[attr-defined]
_requires_grad = torch._C._any_requires_grad
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
