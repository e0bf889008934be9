"""What every operator asks of its arguments before any work: a function for each, with its name
and arguments.

The compiled operators ask the same in csrc/checks.h. These functions are for all that is not
compiled: the public functions (functions.py), shapes without data (native.py), and the plain torch
operators where they stand in. TypeError for a dtype, ValueError for anything else.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import reference

_FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_LARGEST = 2**31 - 1  # of what kernels keep in an int


def _batch(op: str, x: Tensor, references: int) -> None:
    if x.dtype not in _FLOATING:
        raise TypeError(f"{op}: x must be floating point (float16 to float64), not {x.dtype}")
    if x.dim() == 0:
        raise ValueError(f"{op}: x must have at least 1 dimensions, not shape ()")
    if references < 1 or x.shape[0] % references:
        raise ValueError(
            f"{op}: a batch of {x.shape[0]} samples is no multiple of {references} references"
        )
    if "_scope" in op and x.shape[0] == 0:
        raise ValueError(f"{op}: the batch holds no reference, its shape is {tuple(x.shape)}")


def _dims(op: str, x: Tensor, least: int, most: float = math.inf) -> None:
    if not least <= x.dim() <= most:
        count = f"at least {least}" if most == math.inf else f"{least}"
        raise ValueError(f"{op}: x must have {count} dimensions, not shape {tuple(x.shape)}")


def _format(op: str, x: Tensor, channels_last: bool) -> None:
    if channels_last and x.dim() not in (4, 5):
        raise ValueError(
            f"{op}: channels_last is an order of 4 or 5 dimensions, not of shape {tuple(x.shape)}"
        )


def _rows(op: str, name: str, decision: Tensor) -> int:
    if decision.dim() == 0:
        raise ValueError(f"{op}: {name} must have a row for each reference, its shape is ()")
    return decision.shape[0]


def _beside(
    op: str, x: Tensor, name: str, t: Tensor | None, shape: Sequence[int], dtype: torch.dtype
) -> None:
    if t is None:
        return
    if t.device != x.device:
        raise ValueError(f"{op}: x is on {x.device}, {name} on {t.device}")
    if t.dtype != dtype:
        raise TypeError(f"{op}: {name} must be {dtype}, not {t.dtype}")
    if t.shape != torch.Size(shape):
        raise ValueError(
            f"{op}: {name} must be {tuple(shape)}: {tuple(t.shape)} does not belong to x of shape "
            f"{tuple(x.shape)}"
        )


# ---- Piecewise-linear units ----


def _packed(op: str, x: Tensor, decision: Tensor, bits: int, channels_last: bool) -> None:
    references = _rows(op, "decision", decision)
    _batch(op, x, references)
    row = (math.prod(x.shape[1:]) * bits + 7) // 8
    _beside(op, x, "decision", decision, (references, row), torch.uint8)
    _format(op, x, channels_last)


def _in_place(op: str, x: Tensor, channels_last: bool) -> None:
    if not reference.is_dense(x, channels_last):
        raise ValueError(f"{op}: x is not dense in the decision's order")


def relu_scope(x, references, negative_slope, channels_last):
    _batch("relu_scope", x, references)
    _format("relu_scope", x, channels_last)


def relu_frozen(x, decision, negative_slope, channels_last):
    _packed("relu_frozen", x, decision, 1, channels_last)


def relu_frozen_(x, decision, negative_slope, channels_last):
    _packed("relu_frozen_", x, decision, 1, channels_last)
    _in_place("relu_frozen_", x, channels_last)


def clamp_scope(x, references, min, max, channels_last):
    _batch("clamp_scope", x, references)
    _format("clamp_scope", x, channels_last)
    if not min <= max:
        raise ValueError(f"clamp_scope: min must not be greater than max, got {min} and {max}")


def clamp_frozen(x, decision, min, max, channels_last):
    _packed("clamp_frozen", x, decision, 2, channels_last)


def clamp_frozen_(x, decision, min, max, channels_last):
    _packed("clamp_frozen_", x, decision, 2, channels_last)
    _in_place("clamp_frozen_", x, channels_last)


# ---- Smooth switches ----


def _kind(op: str, kind: int) -> None:
    if not 0 <= kind < len(reference.GATES):
        raise ValueError(f"{op}: no gate has the number {kind}, there are {len(reference.GATES)}")


def gate_scope(x, references, kind):
    _batch("gate_scope", x, references)
    _kind("gate_scope", kind)


def gate_frozen(x, gate, shift):
    references = _rows("gate_frozen", "gate", gate)
    _batch("gate_frozen", x, references)
    _beside("gate_frozen", x, "gate", gate, (references, *x.shape[1:]), x.dtype)


def gate_scope_backward(grad_y, x, references, kind):
    _batch("gate_scope_backward", x, references)
    _kind("gate_scope_backward", kind)
    _beside("gate_scope_backward", x, "grad_y", grad_y, x.shape, x.dtype)


# ---- Max pooling ----


def window(op, kernel, stride, padding, dilation):
    """A pool's window as (height, width) pairs, which torch has as well."""
    pairs = kernel, stride, padding, dilation
    if not len(kernel) == len(stride) == len(padding) == len(dilation) == 2:
        raise ValueError(f"{op}: sizes must be one or two ints, got {pairs}")
    for k, s, p, d in zip(*pairs, strict=True):
        if k < 1 or s < 1 or d < 1:
            raise ValueError(f"{op}: kernel, stride and dilation must be positive, got {pairs}")
        if not 0 <= 2 * p <= d * (k - 1) + 1:
            raise ValueError(f"{op}: padding must be at most half of the window, got {pairs}")
        if max(k, s, p, d) > _LARGEST:
            raise ValueError(f"{op}: sizes must be less than 2^31, got {pairs}")
    if kernel[0] * kernel[1] > _LARGEST:
        raise ValueError(f"{op}: the window must have less than 2^31 pixels, got {pairs}")


def pool_size(size, kernel, stride, padding, dilation, ceil_mode):
    """Outputs of a pool along one dimension; a window that starts behind the image is left out, as
    in torch.
    """
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    out = (span + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (out - 1) * stride >= size + padding:
        out -= 1
    return out


def pool_sizes(image, windows, ceil_mode):
    """`pool_size` of (height, width), for (kernel, stride, padding, dilation)."""
    return tuple(
        pool_size(size, k, s, p, d, ceil_mode)
        for size, k, s, p, d in zip(image, *windows, strict=True)
    )


def _every_output_has_a_pixel(size, out, kernel, stride, padding, dilation) -> bool:
    if out < 1 or (out - 1) * stride - padding >= size:
        return False
    if dilation <= size:
        return True
    # Dilated taps can straddle a small image.
    corners = range(-padding, 0, stride)[:out]
    return all(corner % dilation < size for corner in corners)


def _images(op, x, image, windows):
    _dims(op, x, 4, 4)
    window(op, *windows)
    if len(image) != 2:
        raise ValueError(f"{op}: size must be (height, width), not {tuple(image)}")
    for size, k, s, p, d in zip(image, *windows, strict=True):
        if size + 2 * p + d * k + 2 * s > _LARGEST or x.shape[1] > _LARGEST:
            raise ValueError(
                f"{op}: {x.shape[1]} images of {tuple(image)} pixels with this window go beyond "
                f"2^31: (kernel, stride, padding, dilation) = {windows}"
            )


def _pooled(op, image, out, windows):
    if not all(map(_every_output_has_a_pixel, image, out, *windows)):
        raise ValueError(
            f"{op}: an image of {tuple(image)} pixels leaves a window "
            f"(kernel, stride, padding, dilation) = {windows} without any pixel"
        )


def max_pool2d_scope(x, references, kernel, stride, padding, dilation, ceil_mode):
    op, windows = "max_pool2d_scope", (kernel, stride, padding, dilation)
    _batch(op, x, references)
    _dims(op, x, 4, 4)
    if x.numel() == 0:
        raise ValueError(f"{op}: {tuple(x.shape)} holds no pixel")
    _images(op, x, x.shape[2:], windows)
    _pooled(op, x.shape[2:], pool_sizes(x.shape[2:], windows, ceil_mode), windows)


def _frozen_pool(op, x, decision, image, windows):
    references = _rows(op, "decision", decision)
    _batch(op, x, references)
    _images(op, x, image, windows)
    out = tuple(decision.shape[2:])
    shape = (references, x.shape[1], *out[:2])
    _beside(op, x, "decision", decision, shape, reference.code_dtype(windows[0]))
    if out != pool_sizes(image, windows, False) and out != pool_sizes(image, windows, True):
        raise ValueError(
            f"{op}: decision must be of the outputs that an image of {tuple(image)} pixels has, "
            f"not of {out}: (kernel, stride, padding, dilation) = {windows}"
        )
    _pooled(op, image, out, windows)


def max_pool2d_frozen(x, decision, kernel, stride, padding, dilation):
    _dims("max_pool2d_frozen", x, 4, 4)
    _frozen_pool("max_pool2d_frozen", x, decision, x.shape[2:], (kernel, stride, padding, dilation))


def max_pool2d_frozen_transpose(u, decision, size, kernel, stride, padding, dilation):
    op = "max_pool2d_frozen_transpose"
    _frozen_pool(op, u, decision, size, (kernel, stride, padding, dilation))
    if u.shape[2:] != decision.shape[2:]:
        raise ValueError(
            f"{op}: u's planes are {tuple(u.shape[2:])}, the decision's {tuple(decision.shape[2:])}"
        )


# ---- Instance normalisation ----


def instance_norm_scope(x, references, weight, bias, eps):
    op = "instance_norm_scope"
    _batch(op, x, references)
    _dims(op, x, 2)
    for name, t in (("weight", weight), ("bias", bias)):
        _beside(op, x, name, t, x.shape[1:2], reference.wide_dtype(x.dtype))


def instance_norm_frozen(x, mean, scale, shift):
    op = "instance_norm_frozen"
    references = _rows(op, "scale", scale)
    _batch(op, x, references)
    _dims(op, x, 2)
    for name, t in (("mean", mean), ("scale", scale), ("shift", shift)):
        _beside(op, x, name, t, (references, x.shape[1]), reference.wide_dtype(x.dtype))


def instance_norm_scope_backward(grad_y, x, mean, rstd, weight):
    op, wide = "instance_norm_scope_backward", reference.wide_dtype(x.dtype)
    references = _rows(op, "mean", mean)
    _batch(op, x, references)
    _dims(op, x, 2)
    _beside(op, x, "grad_y", grad_y, x.shape, x.dtype)
    _beside(op, x, "mean", mean, (references, x.shape[1]), wide)
    _beside(op, x, "rstd", rstd, (references, x.shape[1]), wide)
    _beside(op, x, "weight", weight, x.shape[1:2], wide)


CHECKS: dict[str, Callable] = {
    f.__name__: f
    for f in (
        relu_scope,
        relu_frozen,
        relu_frozen_,
        clamp_scope,
        clamp_frozen,
        clamp_frozen_,
        gate_scope,
        gate_frozen,
        gate_scope_backward,
        max_pool2d_scope,
        max_pool2d_frozen,
        max_pool2d_frozen_transpose,
        instance_norm_scope,
        instance_norm_frozen,
        instance_norm_scope_backward,
    )
}


def checked(name: str, function: Callable) -> Callable:
    """`function` for calls that pass the check of operator `name`."""
    check = CHECKS[name]

    @functools.wraps(function)
    def call(*args):
        check(*args)
        return function(*args)

    return call
