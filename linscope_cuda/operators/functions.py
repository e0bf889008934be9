"""The operators: scopes on a doubled batch, and frozen scopes that apply recorded decisions.

A scope takes `x` with `references` reference samples first and any number of probes behind them, a
multiple of the references; probe j belongs to reference j mod references. It decides on the
references and applies the decision to all samples (the paper's equation 2), and returns y with the
decision. With no probes it records. A frozen operator applies a recorded decision to any multiple
of the decision's references; its constants set to 0, it is the linear part A(x0), which is its own
transpose for all but max pooling. All are differentiable (autograd.py): a scope's derivative is
the full one, also through the decision where that is smooth; the decision itself is a constant. The
functions that end in _ write x in place, and refuse one that is differentiated (RuntimeError).
Under torch.func.vmap, probes of one decision are one call on the memory they have.

dtypes: float64, float32, float16, bfloat16; statistics in float32 or better. Autocast changes
neither: y has the dtype of x. CPU and CUDA, contiguous and channels_last (of 4 or 5 dimensions).
Errors, before any work: TypeError for another dtype, ValueError for a batch that is no multiple of
`references`, for a decision or parameter of another shape than x wants, or for tensors on different
devices.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import reference
from .autograd import call, call_
from .reference import is_channels_last
from .reference import is_dense as is_dense
from .table.gate import check_gate_frozen, check_gate_scope
from .table.instance_norm import check_instance_norm_frozen, check_instance_norm_scope
from .table.max_pool2d import (
    check_max_pool2d_frozen,
    check_max_pool2d_frozen_transpose,
    check_max_pool2d_scope,
)
from .table.piecewise import (
    check_clamp_frozen,
    check_clamp_frozen_,
    check_clamp_scope,
    check_relu_frozen,
    check_relu_frozen_,
    check_relu_scope,
)

_ops = torch.ops.linscope

GATES = tuple(reference.GATES)

Pair = int | Sequence[int]


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
    check_relu_scope(x, references, negative_slope, last)
    return call(_ops.relu_scope.default, x, references, float(negative_slope), last)


def relu_frozen(
    x: Tensor, decision: Tensor, negative_slope: float = 0.0, channels_last: bool = False
) -> Tensor:
    """The recorded switches of `relu_scope` applied to x; linear, and its own transpose.

    >>> _, decision = relu_scope(torch.tensor([[1.0, -1.0]]))
    >>> relu_frozen(torch.tensor([[5.0, 5.0]]), decision)  # tensor([[5., 0.]])
    """
    check_relu_frozen(x, decision, negative_slope, channels_last)
    return call(_ops.relu_frozen.default, x, decision, float(negative_slope), channels_last)


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
    check_clamp_scope(x, references, min, max, last)
    return call(_ops.clamp_scope.default, x, references, float(min), float(max), last)


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
    check_clamp_frozen(x, decision, min, max, channels_last)
    return call(_ops.clamp_frozen.default, x, decision, float(min), float(max), channels_last)


def relu_frozen_(
    x: Tensor, decision: Tensor, negative_slope: float = 0.0, channels_last: bool = False
) -> Tensor:
    """`relu_frozen` in x's own memory, which must be dense in the decision's order; no gradients.

    >>> _, decision = relu_scope(torch.tensor([[1.0, -1.0]]))
    >>> relu_frozen_(torch.tensor([[5.0, 5.0]]), decision)  # tensor([[5., 0.]])
    """
    check_relu_frozen_(x, decision, negative_slope, channels_last)
    return call_(_ops.relu_frozen_.default, x, decision, float(negative_slope), channels_last)


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
    check_clamp_frozen_(x, decision, min, max, channels_last)
    return call_(_ops.clamp_frozen_.default, x, decision, float(min), float(max), channels_last)


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
    check_gate_scope(x, references, number)
    return call(_ops.gate_scope.default, x, references, number)


def gate_frozen(x: Tensor, gate: Tensor, shift: float = 0.0) -> Tensor:
    """gate * x + shift, for a recorded gate; with shift 0 its linear part and transpose.

    >>> gate_frozen(torch.tensor([[2.0]]), torch.tensor([[0.25]]), 0.5)  # tensor([[1.]])
    """
    check_gate_frozen(x, gate, shift)
    return call(_ops.gate_frozen.default, x, gate, float(shift))


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
    check_max_pool2d_scope(x, references, *windows, ceil_mode)
    return call(_ops.max_pool2d_scope.default, x, references, *windows, ceil_mode)


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
    check_max_pool2d_frozen(x, decision, *windows)
    return call(_ops.max_pool2d_frozen.default, x, decision, *windows)


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
    check_max_pool2d_frozen_transpose(u, decision, list(size), *windows)
    return call(_ops.max_pool2d_frozen_transpose.default, u, decision, list(size), *windows)


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
    check_instance_norm_scope(x, references, weight, bias, eps)
    return call(_ops.instance_norm_scope.default, x, references, weight, bias, float(eps))


def instance_norm_frozen(
    x: Tensor, mean: Tensor | None, scale: Tensor, shift: Tensor | None = None
) -> Tensor:
    """(x - mean) scale + shift with one of each per reference and channel; without mean and shift
    its linear part.

    >>> y, mean, rstd = instance_norm_scope(x0)
    >>> instance_norm_frozen(x1, mean, rstd)
    """
    check_instance_norm_frozen(x, mean, scale, shift)
    return call(_ops.instance_norm_frozen.default, x, mean, scale, shift)
