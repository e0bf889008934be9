"""Max pooling: the decision is the number of the winning pixel within its window."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .layout import by_reference, dense, is_channels_last, wide_dtype


def code_dtype(kernel: list[int]) -> torch.dtype:
    """That of the decision: a byte for windows of up to 256 pixels."""
    return torch.uint8 if kernel[0] * kernel[1] <= 256 else torch.int32


def pool_size(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> int:
    """Outputs of a pool along one dimension; a window that starts behind the image is left out, as
    in torch.
    """
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    out = (span + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (out - 1) * stride >= size + padding:
        out -= 1
    return out


def pool_sizes(
    image: Sequence[int], windows: Sequence[Sequence[int]], ceil_mode: bool
) -> tuple[int, ...]:
    """`pool_size` of (height, width), for (kernel, stride, padding, dilation)."""
    return tuple(
        pool_size(size, k, s, p, d, ceil_mode)
        for size, k, s, p, d in zip(image, *windows, strict=True)
    )


def _corners(y: Tensor, stride: list[int], padding: list[int]) -> tuple[Tensor, Tensor]:
    """Rows (h, 1) and columns (w,) of the input at which the windows of y's pixels start."""
    top = torch.arange(y.shape[2], device=y.device)[:, None] * stride[0] - padding[0]
    return top, torch.arange(y.shape[3], device=y.device) * stride[1] - padding[1]


def _taken(
    decision: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> tuple[Tensor, Tensor]:
    """Rows and columns of the input that the outputs (references, channels, h, w) take."""
    code = decision.long()
    top, left = _corners(code, stride, padding)
    row = top + code // kernel[1] * dilation[0]
    return row, left + code % kernel[1] * dilation[1]


def source_pixels(decision: Tensor, width: int, kernel: list[int], *window: list[int]) -> Tensor:
    """The same as flat places in the input plane."""
    row, column = _taken(decision, kernel, *window)
    return row * width + column


def _on_image(
    decision: Tensor, size: Sequence[int], kernel: list[int], *window: list[int]
) -> Tensor:
    """Which outputs take anything: a number that is no tap of the window, or a tap beside the
    image, takes 0 and gives nothing back.
    """
    row, column = _taken(decision, kernel, *window)
    tap = (decision >= 0) & (decision < kernel[0] * kernel[1])
    return tap & (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])


def max_pool2d_scope(
    x: Tensor,
    references: int,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
) -> tuple[Tensor, Tensor]:
    """y, the pixels that win in x0, and the winner's number in each window."""
    winners = torch.nn.functional.max_pool2d(
        x[:references], kernel, stride, padding, dilation, ceil_mode, return_indices=True
    )[1]
    top, left = _corners(winners, stride, padding)
    i = (winners // x.shape[3] - top) // dilation[0]
    j = (winners % x.shape[3] - left) // dilation[1]
    decision = dense((i * kernel[1] + j).to(code_dtype(kernel)), is_channels_last(x))
    return max_pool2d_frozen(x, decision, kernel, stride, padding, dilation), decision


def max_pool2d_frozen(
    x: Tensor,
    decision: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """The pixels of x that the decision names."""
    window = (kernel, stride, padding, dilation)
    taken = _on_image(decision, x.shape[2:], *window).flatten(2)
    sources = source_pixels(decision, x.shape[3], *window).flatten(2).where(taken, 0)
    samples = by_reference(x.contiguous().flatten(2), decision.shape[0])
    y = samples.gather(3, sources.expand(samples.shape[0], *sources.shape)).where(taken, 0)
    return dense(y.reshape(x.shape[0], *decision.shape[1:]), is_channels_last(x))


def max_pool2d_frozen_transpose(
    u: Tensor,
    decision: Tensor,
    size: list[int],
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """u, added up at the pixels that the decision names, (height, width) = `size`."""
    window = (kernel, stride, padding, dilation)
    taken = _on_image(decision, size, *window).flatten(2)
    sources = source_pixels(decision, size[1], *window).flatten(2).where(taken, 0)
    samples = by_reference(u.contiguous().flatten(2), decision.shape[0]).to(wide_dtype(u.dtype))
    samples = samples.where(taken, 0)
    x = samples.new_zeros(*samples.shape[:3], size[0] * size[1])
    x = x.scatter_add(3, sources.expand(samples.shape[0], *sources.shape), samples)
    x = x.reshape(*u.shape[:2], *size).to(u.dtype)
    return dense(x, is_channels_last(u))
