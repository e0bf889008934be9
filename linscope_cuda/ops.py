"""The operators: scopes on a doubled batch, and frozen scopes that apply recorded decisions.

A scope takes `x` with `references` reference samples first and any number of probes behind them, a
multiple of the references; probe j belongs to reference j mod references. It decides on the
references and applies the decision to all samples (the paper's equation 2), and returns y with the
decision. With no probes it records. A frozen operator applies a recorded decision to any multiple
of the decision's references; its constants set to 0, it is the linear part A(x0), which is its own
transpose for all but max pooling. All are differentiable in x: a scope's derivative is the full
one, also through the decision where that is smooth.

dtypes: float64, float32, float16, bfloat16; statistics in float32 or better. CPU and CUDA,
contiguous and channels_last (of 4 or 5 dimensions). Errors, before any work: TypeError for another
dtype, ValueError for a batch that is no multiple of `references`, for a decision or parameter of
another shape than x wants, or for tensors on different devices.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import Function

from . import (
    _native,  # noqa: F401  registers torch.ops.linscope
    checks,
    reference,
)
from .reference import is_channels_last
from .reference import is_dense as is_dense

_ops = torch.ops.linscope

GATES = tuple(reference.GATES)

Pair = int | Sequence[int]


# Each Function gives torch the derivative of an operator; batching is the operator's own
# (register_vmap).


class _Frozen(Function):
    """A frozen operator, linear in its first argument."""

    generate_vmap_rule = True

    @classmethod
    def call(cls, *args):
        """The Function, or its operator alone where nobody differentiates: a Function costs as much
        time as a small kernel.
        """
        differentiated = torch.is_grad_enabled() or torch.autograd.forward_ad._current_level >= 0
        return cls.apply(*args) if differentiated else cls.forward(*args)


class _Relu(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, references, negative_slope, channels_last):
        return _ops.relu_scope(x, references, negative_slope, channels_last)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.constants = inputs[2:]
        ctx.save_for_backward(output[1])
        ctx.save_for_forward(output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx, grad_y, _):
        return _ReluFrozen.call(grad_y, *ctx.saved_tensors, *ctx.constants), None, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _ReluFrozen.call(tangent, *ctx.saved_tensors, *ctx.constants), None


class _ReluFrozen(_Frozen):
    @staticmethod
    def forward(x, decision, negative_slope, channels_last):
        return _ops.relu_frozen(x, decision, negative_slope, channels_last)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.constants = inputs[2:]
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx, grad_y):
        return _ReluFrozen.call(grad_y, *ctx.saved_tensors, *ctx.constants), None, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _ReluFrozen.call(tangent, *ctx.saved_tensors, *ctx.constants)


class _Clamp(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, references, min, max, channels_last):
        return _ops.clamp_scope(x, references, min, max, channels_last)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.channels_last = inputs[4]
        ctx.save_for_backward(output[1])
        ctx.save_for_forward(output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx, grad_y, _):
        (decision,) = ctx.saved_tensors
        grad_x = _ClampFrozen.call(grad_y, decision, 0.0, 0.0, ctx.channels_last)
        return grad_x, None, None, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        (decision,) = ctx.saved_tensors
        return _ClampFrozen.call(tangent, decision, 0.0, 0.0, ctx.channels_last), None


class _ClampFrozen(_Frozen):
    @staticmethod
    def forward(x, decision, min, max, channels_last):
        return _ops.clamp_frozen(x, decision, min, max, channels_last)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.channels_last = inputs[4]
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx, grad_y):
        (decision,) = ctx.saved_tensors
        grad_x = _ClampFrozen.call(grad_y, decision, 0.0, 0.0, ctx.channels_last)
        return grad_x, None, None, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        (decision,) = ctx.saved_tensors
        return _ClampFrozen.call(tangent, decision, 0.0, 0.0, ctx.channels_last)


class _Gate(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, references, kind):
        return _ops.gate_scope(x, references, kind)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.constants = inputs[1:]
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx, grad_y, _):
        # A second derivative is wanted where gradients are on here: the reference gives it.
        differentiable = torch.is_grad_enabled()
        backward = reference.gate_scope_backward if differentiable else _ops.gate_scope_backward
        return backward(grad_y, *ctx.saved_tensors, *ctx.constants), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        (x,) = ctx.saved_tensors
        return reference.gate_scope_jvp(x, tangent, *ctx.constants), None


class _GateFrozen(_Frozen):
    @staticmethod
    def forward(x, gate, shift):
        return _ops.gate_frozen(x, gate, shift)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx, grad_y):
        (gate,) = ctx.saved_tensors
        return _GateFrozen.call(grad_y, gate, 0.0), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        (gate,) = ctx.saved_tensors
        return _GateFrozen.call(tangent, gate, 0.0)


class _MaxPool2d(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, references, window, ceil_mode):
        return _ops.max_pool2d_scope(x, references, *window, ceil_mode)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.window, ctx.size = inputs[2], list(inputs[0].shape[2:])
        ctx.save_for_backward(output[1])
        ctx.save_for_forward(output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx, grad_y, _):
        (decision,) = ctx.saved_tensors
        return _MaxPool2dTranspose.call(grad_y, decision, ctx.size, ctx.window), None, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        (decision,) = ctx.saved_tensors
        return _MaxPool2dFrozen.call(tangent, decision, ctx.window), None


class _MaxPool2dFrozen(_Frozen):
    @staticmethod
    def forward(x, decision, window):
        return _ops.max_pool2d_frozen(x, decision, *window)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.window, ctx.size = inputs[2], list(inputs[0].shape[2:])
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx, grad_y):
        (decision,) = ctx.saved_tensors
        return _MaxPool2dTranspose.call(grad_y, decision, ctx.size, ctx.window), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _MaxPool2dFrozen.call(tangent, *ctx.saved_tensors, ctx.window)


class _MaxPool2dTranspose(_Frozen):
    @staticmethod
    def forward(u, decision, size, window):
        return _ops.max_pool2d_frozen_transpose(u, decision, size, *window)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.size, ctx.window = inputs[2:]
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx, grad_x):
        grad_u = _MaxPool2dFrozen.call(grad_x, *ctx.saved_tensors, ctx.window)
        return grad_u, None, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _MaxPool2dTranspose.call(tangent, *ctx.saved_tensors, ctx.size, ctx.window)


class _InstanceNorm(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, references, weight, bias, eps):
        return _ops.instance_norm_scope(x, references, weight, bias, eps)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.references, weight, bias, ctx.eps = inputs
        ctx.has_bias = bias is not None
        ctx.save_for_backward(x, output[1], output[2], weight)
        ctx.save_for_forward(x, weight)
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx, grad_y, *_):
        x, mean, rstd, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: mean and rstd depend on x
            _, mean, rstd = reference.instance_norm_scope(x, ctx.references, None, None, ctx.eps)
            grad_x, sum_g, sum_gx = reference.instance_norm_scope_backward(
                grad_y, x, mean, rstd, weight
            )
        else:
            grad_x, sum_g, sum_gx = _ops.instance_norm_scope_backward(grad_y, x, mean, rstd, weight)
        grad_weight = None if weight is None else sum_gx.sum(0)
        grad_bias = sum_g.sum(0) if ctx.has_bias else None
        return grad_x, None, grad_weight, grad_bias, None

    @staticmethod
    def jvp(ctx, x_t, _references, weight_t, bias_t, _eps):
        x, weight = ctx.saved_tensors
        return (
            reference.instance_norm_scope_jvp(
                x, x_t, ctx.references, weight, weight_t, bias_t, ctx.eps
            ),
            None,
            None,
        )


class _InstanceNormFrozen(_Frozen):
    @staticmethod
    def forward(x, mean, scale, shift):
        return _ops.instance_norm_frozen(x, mean, scale, shift)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, mean, scale, _ = inputs
        ctx.set_materialize_grads(False)  # an argument that does not move has no tangent
        parameters = any(ctx.needs_input_grad[1:])
        ctx.save_for_backward(x if parameters else None, mean, scale)
        ctx.save_for_forward(x, mean, scale)

    @staticmethod
    def backward(ctx, grad_y):
        if grad_y is None:
            return None, None, None, None
        x, mean, scale = ctx.saved_tensors
        grad_x = _InstanceNormFrozen.call(grad_y, None, scale, None)
        grad_mean = grad_scale = grad_shift = None
        if x is not None:
            wide, planes = scale.dtype, (*scale.shape, -1)
            g = reference.by_reference(grad_y.to(wide), len(scale))
            centered = reference.by_reference(x.to(wide), len(scale))
            grad_shift = g.sum(0).reshape(planes).sum(2)
            grad_scale = (g * centered).sum(0).reshape(planes).sum(2)
            if mean is not None:
                grad_scale = grad_scale - mean * grad_shift
                grad_mean = -scale * grad_shift
        needs = ctx.needs_input_grad
        return (
            grad_x,
            grad_mean if needs[1] else None,
            grad_scale if needs[2] else None,
            grad_shift if needs[3] else None,
        )

    @staticmethod
    def jvp(ctx, x_t, mean_t, scale_t, shift_t):
        x, mean, scale = ctx.saved_tensors
        terms = [] if x_t is None else [_InstanceNormFrozen.call(x_t, None, scale, None)]
        if scale_t is not None:
            terms.append(_InstanceNormFrozen.call(x, mean, scale_t, None))
        for offset in (None if mean_t is None else -mean_t * scale, shift_t):
            if offset is not None:
                zero = torch.zeros_like(x)
                terms.append(_InstanceNormFrozen.call(zero, None, scale, offset))
        return sum(terms)


# ---- The public functions ----


def relu_scope(
    x: Tensor, references: int = 1, negative_slope: float = 0.0, channels_last: bool | None = None
) -> tuple[Tensor, Tensor]:
    """ReLU or LeakyReLU on the references, the same switches for their probes.

    y0 = h(x0); y1 = x1 where x0 > 0, else negative_slope * x1 (equation 2). NaN in x0 passes, as in
    torch. Returns y like x, and the decision: 1 bit per element, (references, bytes) uint8, packed
    in the order of memory, which is that of `channels_last` (default: x's own format).

    >>> y, decision = relu_scope(torch.tensor([[1.0, -1.0], [5.0, 5.0]]))
    >>> y  # tensor([[1., 0.], [5., 0.]])
    """
    last = is_channels_last(x) if channels_last is None else channels_last
    checks.relu_scope(x, references, negative_slope, last)
    return _Relu.apply(x, references, float(negative_slope), last)


def relu_frozen(
    x: Tensor, decision: Tensor, negative_slope: float = 0.0, channels_last: bool = False
) -> Tensor:
    """The recorded switches of `relu_scope` applied to x; linear, and its own transpose.

    >>> _, decision = relu_scope(torch.tensor([[1.0, -1.0]]))
    >>> relu_frozen(torch.tensor([[5.0, 5.0]]), decision)  # tensor([[5., 0.]])
    """
    checks.relu_frozen(x, decision, negative_slope, channels_last)
    return _ReluFrozen.call(x, decision, float(negative_slope), channels_last)


def clamp_scope(
    x: Tensor,
    references: int = 1,
    min: float = 0.0,
    max: float = 6.0,
    channels_last: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Clamp (ReLU6, hardtanh) of the references; where they saturate, their probes are the constant
    too.

    y1 = x1 where min < x0 < max, else min or max (equation 2 with c(x0)). Returns y and the
    decision: 2 bits per element, (references, bytes) uint8. ValueError if min > max.

    >>> y, decision = clamp_scope(torch.tensor([[3.0, 9.0], [1.0, 1.0]]))
    >>> y  # tensor([[3., 6.], [1., 6.]])
    """
    last = is_channels_last(x) if channels_last is None else channels_last
    checks.clamp_scope(x, references, min, max, last)
    return _Clamp.apply(x, references, float(min), float(max), last)


def clamp_frozen(
    x: Tensor,
    decision: Tensor,
    min: float = 0.0,
    max: float = 6.0,
    channels_last: bool = False,
) -> Tensor:
    """The recorded decision of `clamp_scope` applied to x; with min = max = 0 its linear part and
    transpose.

    >>> _, decision = clamp_scope(torch.tensor([[3.0, 9.0]]))
    >>> clamp_frozen(torch.tensor([[1.0, 1.0]]), decision, 0, 0)  # tensor([[1., 0.]])
    """
    checks.clamp_frozen(x, decision, min, max, channels_last)
    return _ClampFrozen.call(x, decision, float(min), float(max), channels_last)


def relu_frozen_(
    x: Tensor, decision: Tensor, negative_slope: float = 0.0, channels_last: bool = False
) -> Tensor:
    """`relu_frozen` in x's own memory, which must be dense in the decision's order; no gradients.

    >>> _, decision = relu_scope(torch.tensor([[1.0, -1.0]]))
    >>> relu_frozen_(torch.tensor([[5.0, 5.0]]), decision)  # tensor([[5., 0.]])
    """
    checks.relu_frozen_(x, decision, negative_slope, channels_last)
    _ops.relu_frozen_(x, decision, float(negative_slope), channels_last)
    return x


def clamp_frozen_(
    x: Tensor,
    decision: Tensor,
    min: float = 0.0,
    max: float = 6.0,
    channels_last: bool = False,
) -> Tensor:
    """`clamp_frozen` in x's own memory, which must be dense in the decision's order; no gradients.

    >>> _, decision = clamp_scope(torch.tensor([[3.0, 9.0]]))
    >>> clamp_frozen_(torch.tensor([[1.0, 1.0]]), decision, 0, 0)  # tensor([[1., 0.]])
    """
    checks.clamp_frozen_(x, decision, min, max, channels_last)
    _ops.clamp_frozen_(x, decision, float(min), float(max), channels_last)
    return x


def gate_shift(kind: str) -> float:
    """c of a gate's y = A(x0) x + c: 1/2 for "sigmoid", 0 for the others."""
    if kind not in GATES:
        raise ValueError(f"no gate is called {kind!r}; there are {', '.join(GATES)}")
    return reference.GATES[kind].shift


def gate_scope(x: Tensor, references: int = 1, kind: str = "sigmoid") -> tuple[Tensor, Tensor]:
    """A smooth switch (sigmoid, tanh, silu, gelu, gelu_tanh, sigmoid_mask) read as a gate A(x0)
    times its input.

    y0 = h(x0); y1 = A(x0) x1 + c. sigmoid: the secant through h(0), A = tanh(x0/2) / (2 x0), c =
    1/2; sigmoid_mask is the paper's h(x0)/x0, infinite at 0. Returns y and the decision A(x0),
    (references, ...) in x's dtype.

    >>> y, gate = gate_scope(torch.tensor([[0.0], [2.0]]), kind="sigmoid")
    >>> y, gate  # tensor([[0.5], [1.0]]), tensor([[0.25]])
    """
    gate_shift(kind)
    number = GATES.index(kind)
    checks.gate_scope(x, references, number)
    return _Gate.apply(x, references, number)


def gate_frozen(x: Tensor, gate: Tensor, shift: float = 0.0) -> Tensor:
    """gate * x + shift, for a recorded gate; with shift 0 its linear part and transpose.

    >>> gate_frozen(torch.tensor([[2.0]]), torch.tensor([[0.25]]), 0.5)  # tensor([[1.]])
    """
    checks.gate_frozen(x, gate, shift)
    return _GateFrozen.call(x, gate, float(shift))


def pair(value: Pair) -> list[int]:
    """(height, width) of an int or a sequence of one or two."""
    values = [value] if isinstance(value, int) else [int(v) for v in value]
    return values * 2 if len(values) == 1 else values


def window(
    kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, dilation: Pair = 1
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Kernel, stride, padding and dilation as (height, width) pairs; the stride's default is the
    kernel.
    """
    kernel = pair(kernel_size)
    return kernel, pair(stride) if stride else kernel, pair(padding), pair(dilation)


def max_pool2d_scope(
    x: Tensor,
    references: int = 1,
    kernel_size: Pair = 2,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """Max pooling of (samples, channels, height, width): probes give the pixel that won in their
    reference.

    Ties go to the first pixel, NaN wins, as in torch. Returns y and the decision: the winner's
    number within its window, (references, channels, height, width) uint8, int32 for windows of more
    than 256 pixels.

    >>> y, winners = max_pool2d_scope(torch.tensor([[[[1.0, 3.0]]], [[[7.0, 5.0]]]]), 1, (1, 2))
    >>> y.flatten(), winners  # tensor([3., 5.]), tensor([[[[1]]]])
    """
    windows = window(kernel_size, stride, padding, dilation)
    checks.max_pool2d_scope(x, references, *windows, ceil_mode)
    return _MaxPool2d.apply(x, references, windows, ceil_mode)


def max_pool2d_frozen(
    x: Tensor,
    decision: Tensor,
    kernel_size: Pair = 2,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
) -> Tensor:
    """The pixels that won in `max_pool2d_scope`, taken from x: linear.

    A number in the decision that is no tap of its window, or a tap beside the image, takes 0.

    >>> winners = torch.tensor([[[[1]]]], dtype=torch.uint8)
    >>> max_pool2d_frozen(torch.tensor([[[[7.0, 5.0]]]]), winners, (1, 2))  # tensor([[[[5.]]]])
    """
    windows = window(kernel_size, stride, padding, dilation)
    checks.max_pool2d_frozen(x, decision, *windows)
    return _MaxPool2dFrozen.call(x, decision, windows)


def max_pool2d_frozen_transpose(
    u: Tensor,
    decision: Tensor,
    size: Sequence[int],
    kernel_size: Pair = 2,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
) -> Tensor:
    """The transpose of `max_pool2d_frozen` for inputs of `size` (height, width): each pixel sums
    what it won; an output whose number names no pixel of its window is left out.

    >>> winners, u = torch.tensor([[[[1]]]], dtype=torch.uint8), torch.ones(1, 1, 1, 1)
    >>> max_pool2d_frozen_transpose(u, winners, (1, 2), (1, 2))  # tensor([[[[0., 1.]]]])
    """
    windows = window(kernel_size, stride, padding, dilation)
    checks.max_pool2d_frozen_transpose(u, decision, list(size), *windows)
    return _MaxPool2dTranspose.call(u, decision, list(size), windows)


def instance_norm_scope(
    x: Tensor,
    references: int = 1,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """Instance normalisation of (samples, channels, *spatial): probes are normalised with their
    reference's plane.

    y1 = (x1 - mean(x0)) rstd(x0) weight + bias, rstd = 1 / sqrt(biased variance + eps). weight and
    bias are used in float32 or better, also beside an x in half precision. Returns y and the
    decision: mean and rstd, (references, channels) in float32 or better.

    >>> y, mean, rstd = instance_norm_scope(torch.randn(2, 3, 8, 8))
    """
    wide = reference.wide_dtype(x.dtype)
    weight = None if weight is None else weight.to(wide)
    bias = None if bias is None else bias.to(wide)
    checks.instance_norm_scope(x, references, weight, bias, eps)
    return _InstanceNorm.apply(x, references, weight, bias, float(eps))


def instance_norm_frozen(
    x: Tensor, mean: Tensor | None, scale: Tensor, shift: Tensor | None = None
) -> Tensor:
    """(x - mean) scale + shift with one of each per reference and channel; without mean and shift
    its linear part.

    >>> y, mean, rstd = instance_norm_scope(x0)
    >>> instance_norm_frozen(x1, mean, rstd)
    """
    checks.instance_norm_frozen(x, mean, scale, shift)
    return _InstanceNormFrozen.call(x, mean, scale, shift)
