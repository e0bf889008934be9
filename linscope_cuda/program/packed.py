"""Convolutions to few channels, computed as convolutions to blocks of pixels.

oneDNN computes channels 16 at a time: one that gives 3 channels does the work of 16. As 12 channels
for each block of 2 by 2 pixels, a quarter as often and with a kernel that is a little larger, it is
done in a third to two thirds of the time. The first layer, transposed, and the last one of a
network that makes pictures are of this kind.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from .line import Line
from .step import Step, Value
from .writer import Writer

aten = torch.ops.aten

_CHANNELS = 16  # that are computed at a time
_PIXELS = 1024  # fewer are not worth two more steps
_GAIN = 1.25


def packed(line: Line) -> Line:
    """The line with blocks of pixels in place of few channels, where that is less work.

    Such a convolution has weights of its own, and rounds otherwise.
    """
    writer = Writer(line)
    for step in line.steps:
        blocks = _blocks(step)
        if blocks is None:
            writer.steps.append(step)
        else:
            _pack(writer, step, blocks)
    return writer.line(line.input, line.output)


class Blocks(NamedTuple):
    """Along one dimension: pixel `phase` of block t is the sum over its `taps`, (phase, j, at) with
    0 <= at < span, of w[j] x[stride t + first + at]; `count` blocks of `side` pixels hold the
    `size` of the result.
    """

    side: int
    stride: int
    first: int
    span: int
    count: int
    size: int
    taps: list[tuple[int, int, int]]


def _blocks(step: Step) -> list[Blocks] | None:
    """How a convolution is computed in blocks; None if it is not."""
    if step.function is not aten.convolution.default:
        return None
    weight, bias, stride, padding, dilation, transposed, _, groups = step.args[1:]
    shape = step.output.shape
    few = len(shape) == 4 and groups == 1 and shape[1] < _CHANNELS // 2
    if not few or bias is not None or not isinstance(weight, Tensor) or not _onednn(weight):
        return None
    if shape[2] * shape[3] < _PIXELS:
        return None
    options = zip(
        weight.shape[2:], _pair(stride), _pair(padding), _pair(dilation), shape[2:], strict=True
    )
    found = [_along(*o, transposed) for o in options]
    if found[0].side != found[1].side:
        return None
    area = weight.shape[2] * weight.shape[3]
    direct = _CHANNELS * area / (stride[0] * stride[-1] if transposed else 1)  # for a pixel
    pixels = found[0].side ** 2
    channels = -(-shape[1] * pixels // _CHANNELS) * _CHANNELS
    work = channels * found[0].span * found[1].span / pixels
    return found if work * _GAIN < direct else None


def _onednn(weight: Tensor) -> bool:
    cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
    return cpu and torch.backends.mkldnn.is_available()


def _pair(value: list[int]) -> list[int]:
    return list(value) if len(value) > 1 else list(value) * 2


def _along(
    kernel: int, stride: int, padding: int, dilation: int, size: int, transposed: bool
) -> Blocks:
    side = stride if transposed and stride > 1 else 2
    places = []
    for phase, j in product(range(side), range(kernel)):
        if transposed:
            at, left = divmod(phase + padding - dilation * j, stride)
            if not left:
                places.append((phase, j, at))
        else:
            places.append((phase, j, stride * phase + dilation * j - padding))
    first = min(at for *_, at in places)
    span = max(at for *_, at in places) - first + 1
    taps = [(phase, j, at - first) for phase, j, at in places]
    step = side // stride if transposed else stride * side
    return Blocks(side, step, first, span, -(-size // side), size, taps)


def _pack(writer: Writer, step: Step, blocks: list[Blocks]) -> None:
    x, weight, _, _, _, _, transposed, _, _ = step.args
    writer.at(step)
    before, dtype = len(writer.steps), step.output.dtype
    side = blocks[0].side
    ahead = [_ahead(b, n) for b, n in zip(blocks, x.shape[2:], strict=True)]
    weight = _weights(weight.transpose(0, 1) if transposed else weight, blocks)
    shape = [x.shape[0], len(weight)]
    shape += [
        (n + 2 * p - b.span) // b.stride + 1
        for b, n, p in zip(blocks, x.shape[2:], ahead, strict=True)
    ]
    args = (weight, None, [b.stride for b in blocks], ahead, [1, 1], False, [0, 0], 1)
    y = writer.emit(aten.convolution.default, x, *args, like=(shape, dtype))
    for dim, (b, p) in enumerate(zip(blocks, ahead, strict=True), 2):
        start = (p + b.first) // b.stride
        y = _part(writer, y, dim, start, start + b.count)
    shape = [x.shape[0], step.output.shape[1], *(b.count * side for b in blocks)]
    y = writer.emit(aten.pixel_shuffle.default, y, side, like=(shape, dtype))
    for dim, b in enumerate(blocks, 2):
        y = _part(writer, y, dim, 0, b.size)
    writer.name(y, step.output, before)


def _ahead(b: Blocks, inputs: int) -> int:
    """How many zeros go on either side of x: enough for the first block and for the last, and so
    many that a block begins where it shall.
    """
    least = max(0, -b.first, b.stride * (b.count - 1) + b.first + b.span - inputs)
    return least + -(least + b.first) % b.stride


def _weights(weight: Tensor, blocks: list[Blocks]) -> Tensor:
    """(channels out * side * side, channels in, *spans) of (channels out, channels in, *kernel)."""
    placed = []
    for b, kernel in zip(blocks, weight.shape[2:], strict=True):
        ones = torch.zeros(b.side, kernel, b.span, dtype=torch.float64)
        ones[tuple(zip(*b.taps, strict=True))] = 1
        placed.append(ones)
    # In float64, so that no matrix product rounds.
    made = torch.einsum("ocij,pia,qjb->opqcab", weight.detach().double(), *placed)
    return made.flatten(0, 2).to(weight.dtype).contiguous()


def _part(writer: Writer, y: Value, dim: int, start: int, end: int) -> Value:
    if (start, end) == (0, y.shape[dim]):
        return y
    shape = [*y.shape[:dim], end - start, *y.shape[dim + 1 :]]
    return writer.emit(aten.slice.Tensor, y, dim, start, end, 1, like=(shape, y.dtype))
