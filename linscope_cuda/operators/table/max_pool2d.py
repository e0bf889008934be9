"""Max pooling."""

from __future__ import annotations

from .. import reference
from ..checks import batch, beside, dims, rows
from ..derivatives import Linear
from ..empty import empty
from ..operator import Operator
from ..reference import pool_sizes

_LARGEST = 2**31 - 1  # of what kernels keep in an int

# ---- Checks ----


def _window(op, kernel, stride, padding, dilation):
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


def _every_output_has_a_pixel(size, out, kernel, stride, padding, dilation) -> bool:
    if out < 1 or (out - 1) * stride - padding >= size:
        return False
    if dilation <= size:
        return True
    # Dilated taps can straddle a small image.
    corners = range(-padding, 0, stride)[:out]
    return all(corner % dilation < size for corner in corners)


def _images(op, x, image, windows):
    dims(op, x, 4, 4)
    _window(op, *windows)
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


def check_max_pool2d_scope(x, references, kernel, stride, padding, dilation, ceil_mode):
    op, windows = "max_pool2d_scope", (kernel, stride, padding, dilation)
    batch(op, x, references)
    dims(op, x, 4, 4)
    if x.numel() == 0:
        raise ValueError(f"{op}: {tuple(x.shape)} holds no pixel")
    _images(op, x, x.shape[2:], windows)
    _pooled(op, x.shape[2:], pool_sizes(x.shape[2:], windows, ceil_mode), windows)


def _frozen_pool(op, x, decision, image, windows):
    references = rows(op, "decision", decision)
    batch(op, x, references)
    _images(op, x, image, windows)
    out = tuple(decision.shape[2:])
    shape = (references, x.shape[1], *out[:2])
    beside(op, x, "decision", decision, shape, reference.code_dtype(windows[0]))
    if out != pool_sizes(image, windows, False) and out != pool_sizes(image, windows, True):
        raise ValueError(
            f"{op}: decision must be of the outputs that an image of {tuple(image)} pixels has, "
            f"not of {out}: (kernel, stride, padding, dilation) = {windows}"
        )
    _pooled(op, image, out, windows)


def check_max_pool2d_frozen(x, decision, kernel, stride, padding, dilation):
    dims("max_pool2d_frozen", x, 4, 4)
    _frozen_pool("max_pool2d_frozen", x, decision, x.shape[2:], (kernel, stride, padding, dilation))


def check_max_pool2d_frozen_transpose(u, decision, size, kernel, stride, padding, dilation):
    op = "max_pool2d_frozen_transpose"
    _frozen_pool(op, u, decision, size, (kernel, stride, padding, dilation))
    if u.shape[2:] != decision.shape[2:]:
        raise ValueError(
            f"{op}: u's planes are {tuple(u.shape[2:])}, the decision's {tuple(decision.shape[2:])}"
        )


# ---- Fakes ----


def _scope(x, references, kernel, stride, padding, dilation, ceil_mode):
    size = pool_sizes(x.shape[2:], (kernel, stride, padding, dilation), ceil_mode)
    last, code = reference.is_channels_last(x), reference.code_dtype(kernel)
    y = empty(x, (*x.shape[:2], *size), last)
    return y, empty(x, (references, x.shape[1], *size), last, code)


def _frozen(x, decision, *window):
    return empty(x, (*x.shape[:2], *decision.shape[2:]), reference.is_channels_last(x))


def _transpose(u, decision, size, *window):
    return empty(u, (*u.shape[:2], *size), reference.is_channels_last(u))


# ---- Derivatives ----


def _forth(x, _, kernel, stride, padding, dilation, ceil_mode=None):
    window = kernel, stride, padding, dilation
    return window, (list(x.shape[2:]), *window)


def _back(u, _, size, *window):
    return (size, *window), window


# ---- Entries ----

ENTRIES = [
    Operator(
        reference.max_pool2d_scope,
        check=check_max_pool2d_scope,
        fake=_scope,
        arguments="xR.....",
        results="xd",
        derivative=Linear("max_pool2d_frozen", "max_pool2d_frozen_transpose", _forth),
    ),
    Operator(
        reference.max_pool2d_frozen,
        check=check_max_pool2d_frozen,
        fake=_frozen,
        arguments="xd....",
        results="x",
        derivative=Linear("max_pool2d_frozen", "max_pool2d_frozen_transpose", _forth),
    ),
    Operator(
        reference.max_pool2d_frozen_transpose,
        check=check_max_pool2d_frozen_transpose,
        fake=_transpose,
        arguments="xd.....",
        results="x",
        derivative=Linear("max_pool2d_frozen_transpose", "max_pool2d_frozen", _back),
    ),
]
