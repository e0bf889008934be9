"""Functions that are linear in the probe already: which of their arguments may hold it, and their
part without offsets.

`y = A x + c` of such a function comes from its constants (a bias, an added number). F x and F^T u
need A x alone, and need it without subtraction: a small column of F would drown in a large
residual. Convolutions and matrix products run through Functions that keep nothing but the weight;
torch's own also keep their input, even for a frozen weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

aten = torch.ops.aten

IsProbe = Callable[[Any], int]  # how many tensors of a value depend on the input

# ---- Layers with weights ----


class _Convolution(Function):
    @staticmethod
    def forward(ctx, x, weight, geometry):
        ctx.save_for_backward(weight)
        ctx.geometry, ctx.shape = geometry, x.shape
        return aten.convolution(x, weight, None, *geometry)

    @staticmethod
    def backward(ctx, *grads):
        (u,), (weight,) = grads, ctx.saved_tensors
        # Only the shape of the input counts: one element stands for all of it.
        shape_only = u.new_empty(1).expand(ctx.shape)
        grad = aten.convolution_backward(
            u, shape_only, weight, None, *ctx.geometry, [True, False, False]
        )
        return grad[0], None, None


class _MatrixProduct(Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(weight)
        return F.linear(x, weight)

    @staticmethod
    def backward(ctx, *grads):
        (u,), (weight,) = grads, ctx.saved_tensors
        return u @ weight, None


def _sizes(value: Any, dims: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * dims if len(values) == 1 else values


def _convolution(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    dims = weight.dim() - 2
    stride, dilation = _sizes(stride, dims), _sizes(dilation, dims)
    if padding == "same":
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        # The odd pixel goes behind, as in torch.
        ends = [(s - s // 2 * 2) for s in spans]
        input = F.pad(input, [v for e in reversed(ends) for v in (0, e)]) if any(ends) else input
        padding = [s // 2 for s in spans]
    padding = [0] * dims if padding == "valid" else _sizes(padding, dims)
    geometry = (stride, padding, dilation, False, [0] * dims, groups)
    return _with_batch(_Convolution, input, weight, geometry)


def _transposed_convolution(
    input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    dims = weight.dim() - 2
    stride, padding, output_padding, dilation = (
        _sizes(v, dims) for v in (stride, padding, output_padding, dilation)
    )
    return _with_batch(
        _Convolution, input, weight, (stride, padding, dilation, True, output_padding, groups)
    )


def _with_batch(function: type[Function], input: Tensor, weight: Tensor, geometry: tuple) -> Tensor:
    if input.dim() == weight.dim():
        return function.apply(input, weight, geometry)
    return function.apply(input[None], weight, geometry)[0]


def _linear(input, weight, bias=None):
    return _MatrixProduct.apply(input, weight)


def _batch_norm(
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
):
    scale = (running_var + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    return input * scale.to(input.dtype).view(-1, *[1] * (input.dim() - 2))


# ---- Offsets dropped from other functions ----


def _zero(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.new_zeros(()).expand(value.shape)
    return 0 * value if isinstance(value, int | float) and not isinstance(value, bool) else value


def _addition(function: Callable, is_probe: IsProbe, args: tuple, kwargs: dict) -> Any:
    zeroed = [a if is_probe(a) else _zero(a) for a in args]
    rest = {k: v if k == "alpha" or is_probe(v) else _zero(v) for k, v in kwargs.items()}
    return function(*zeroed, **rest)


def _concatenation(function: Callable, is_probe: IsProbe, args: tuple, kwargs: dict) -> Any:
    named = {"tensors": args[0], **kwargs} if args else dict(kwargs)
    parts = named.pop("tensors")
    return function([t if is_probe(t) else _zero(t) for t in parts], *args[1:], **named)


def _padding(input, pad, mode="constant", value=None):
    return F.pad(input, pad, mode, 0.0 if mode == "constant" else None)


def _selection(function: Callable, is_probe: IsProbe, args: tuple, kwargs: dict) -> Any:
    """where(condition, a, b)."""
    condition, *choices = args
    return function(condition, *(c if is_probe(c) else _zero(c) for c in choices), **kwargs)


def _difference(function: Callable, is_probe: IsProbe, args: tuple, kwargs: dict) -> Any:
    """A x as f(x) - f(0), for functions that are too rare for a way of their own."""

    def zeros(value):
        return torch.zeros_like(value) if is_probe(value) else value

    at_zero = function(*map(zeros, args), **{k: zeros(v) for k, v in kwargs.items()})
    return function(*args, **kwargs) - at_zero


def _unchanged(function: Callable, is_probe: IsProbe, args: tuple, kwargs: dict) -> Any:
    return function(*args, **kwargs)


def _without_bias(layer: Callable) -> Callable:
    def homogeneous(function: Callable, is_probe: IsProbe, args: tuple, kwargs: dict) -> Any:
        return layer(*args, **kwargs)

    return homogeneous


# ---- The table ----


@dataclass(frozen=True)
class Linear:
    """Which arguments may hold the probe, and how to get A x alone.

    `probes`: the "first" argument, all but the first ("rest"), "one" of them, or "any" number.
    """

    probes: str
    homogeneous: Callable[[Callable, IsProbe, tuple, dict], Any] = _unchanged


def _methods(*names: str) -> list[Any]:
    """torch.NAME, Tensor.NAME and their in-place twins, as far as there are such."""
    spellings = [n + tail for n in names for tail in ("", "_")]
    return [getattr(home, n) for n in spellings for home in (torch, Tensor) if hasattr(home, n)]


def _properties(*names: str) -> list[Any]:
    """Tensor.NAME as a function mode sees it."""
    return [getattr(Tensor, n).__get__ for n in names]


_TABLE: list[tuple[Linear, list[Any]]] = [
    (Linear("first", _without_bias(_convolution)), [F.conv1d, F.conv2d, F.conv3d]),
    (
        Linear("first", _without_bias(_transposed_convolution)),
        [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d],
    ),
    (Linear("first", _without_bias(_linear)), [F.linear]),
    (Linear("first", _without_bias(_batch_norm)), [F.batch_norm]),
    (Linear("first", _without_bias(_padding)), [F.pad]),
    (
        Linear("any", _addition),
        _methods("add", "sub", "subtract", "rsub", "__add__", "__radd__", "__sub__", "__rsub__")
        + [Tensor.__iadd__, Tensor.__isub__],
    ),
    (
        Linear("any", _concatenation),
        [torch.cat, torch.concat, torch.concatenate, torch.stack]
        + [torch.hstack, torch.vstack, torch.dstack],
    ),
    (Linear("rest", _selection), [torch.where]),
    (
        Linear("first"),
        _methods(
            *("view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "clone"),
            *("swapaxes", "swapdims", "movedim", "moveaxis", "squeeze", "unsqueeze", "expand"),
            *("expand_as", "view_as", "reshape_as", "repeat", "repeat_interleave", "tile"),
            *("contiguous", "chunk", "split", "tensor_split", "unbind", "narrow", "select"),
            *("roll", "flip", "fliplr", "flipud", "rot90", "unfold", "cumsum", "sum", "mean"),
            *("neg", "negative", "to", "float", "double", "half", "bfloat16", "type_as", "cpu"),
            *("cuda", "detach", "requires_grad", "alias", "broadcast_to", "diff", "diagonal"),
            *("tril", "triu", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "adjoint"),
            *(
                "__getitem__",
                "index_select",
                "gather",
                "take_along_dim",
                "__neg__",
                "__pos__",
                "positive",
                "split_with_sizes",
                "select_copy",
            ),
        )
        + _properties("T", "mT", "data", "real")
        + [F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle, F.interpolate, F.upsample]
        + [F.upsample_nearest, F.upsample_bilinear, F.fold, F.unfold, F.avg_pool1d, F.avg_pool2d]
        + [F.avg_pool3d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d]
        + [torch.adaptive_avg_pool1d, torch.avg_pool1d, Tensor.split],
    ),
    (
        Linear("one"),
        _methods("mul", "multiply", "matmul", "bmm", "mm", "mv", "einsum", "tensordot")
        + [Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__, Tensor.__matmul__]
        + [Tensor.__rmatmul__],
    ),
    (
        Linear("first"),
        _methods("div", "divide", "true_divide") + [Tensor.__truediv__, Tensor.__itruediv__],
    ),
    (Linear("first", _difference), _methods("addmm", "baddbmm", "addbmm", "addmv")),
    # In eval mode these do nothing; in training mode they are refused before they are called.
    (
        Linear("first"),
        [F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout]
        + [F.feature_alpha_dropout, torch.dropout],
    ),
]

LINEAR: dict[Any, Linear] = {
    function: entry for entry, functions in _TABLE for function in functions
}


def _names(*names: str) -> set[Any]:
    found = (getattr(Tensor, n, None) for n in names)
    return {f if callable(f) else f.__get__ for f in found if f is not None}


# What asks a tensor for facts that do not depend on its values, or makes a constant of the same
# kind.
NEUTRAL: set[Any] = _names(
    *("size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "__len__"),
    *("element_size", "is_contiguous", "is_floating_point", "is_complex", "get_device", "__hash__"),
    *(
        "shape",
        "dtype",
        "device",
        "ndim",
        "layout",
        "is_cuda",
        "is_cpu",
        "requires_grad",
        "is_leaf",
    ),
    *("grad_fn", "is_sparse", "is_quantized", "is_meta", "itemsize", "nbytes", "is_mkldnn"),
    *("is_nested", "names", "_version", "is_signed", "is_inference", "is_shared", "is_pinned"),
    *("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor", "requires_grad_"),
    *("register_hook", "retain_grad", "data_ptr", "untyped_storage", "is_xpu", "is_mps"),
) | {torch.zeros_like, torch.ones_like, torch.empty_like, torch.full_like, torch.rand_like}
NEUTRAL |= {torch.randn_like, torch.is_floating_point, torch.is_complex, torch.numel}
NEUTRAL |= {torch.is_tensor, torch.result_type, torch.is_same_size}
