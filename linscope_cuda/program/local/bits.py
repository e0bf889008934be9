"""The part of a packed decision that lies in a box."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from .box import Box, sizes


def codes(decision: Tensor, bits: int, shape: tuple[int, ...], box: Box, last: bool) -> Tensor:
    """The small numbers of one sample, (1, *shape), that a decision (1, bytes) holds in the order
    of memory, `last`: channels last; of a box, as uint8.

    A box is rows of entries that lie one after the other. Their bytes are taken, and the bits of
    each byte looked up.
    """
    packed, size = decision[0], tuple(sizes(box)[1:])
    rows = _rows(shape[1:], size, bits, last, packed.device)
    first = sum(start * stride for (start, _), stride in zip(box[1:], rows.strides, strict=True))
    found = _aligned(packed, rows, first) if rows.even else _shifted(packed, rows, first)
    found = found.reshape([size[d] for d in rows.order])
    return (found.movedim(-1, 0) if last else found).reshape(1, *size)


class _Rows(NamedTuple):
    """Where a box of some size lies, if it begins with the first entry."""

    order: list[int]  # the dimensions, in the order of memory
    strides: list[int]  # of each dimension, in entries
    starts: Tensor  # of each row, in entries
    length: int  # of a row, in entries
    bits: int
    at: Tensor  # (rows, bytes): the bytes of each row, and the one behind
    last: int  # of them
    even: bool  # whether all rows begin at the same bit of a byte
    table: Tensor  # (256, entries): the numbers in a byte, lowest bits first


@lru_cache(maxsize=1024)
def _rows(
    shape: tuple[int, ...], size: tuple[int, ...], bits: int, last: bool, device: torch.device
) -> _Rows:
    order = [*range(1, len(shape)), 0] if last else list(range(len(shape)))
    extents, counts = [shape[d] for d in order], [size[d] for d in order]
    strides = [prod(extents[i + 1 :]) for i in range(len(extents))]
    inner = len(order) - 1
    while inner > 0 and counts[inner] == extents[inner]:
        inner -= 1  # whole rows, one after the other, are one row
    starts = torch.zeros(1, dtype=torch.int64, device=device)
    for count, stride in zip(counts[:inner], strides[:inner], strict=True):
        starts = (starts[:, None] + torch.arange(count, device=device) * stride).flatten()
    each, length = 8 // bits, counts[inner] * strides[inner]
    at = starts[:, None] // each + torch.arange(-(-length // each) + 1, device=device)
    shifts = torch.arange(0, 8, bits, device=device)
    table = ((torch.arange(256, device=device)[:, None] >> shifts) & (2**bits - 1)).to(torch.uint8)
    return _Rows(
        order,
        [strides[order.index(d)] for d in range(len(shape))],
        starts,
        length,
        bits,
        at,
        (sum((n - 1) * s for n, s in zip(counts[:inner], strides[:inner], strict=True))) // each
        + -(-length // each),
        all(s % each == 0 for s, n in zip(strides[:inner], counts[:inner], strict=True) if n > 1),
        table,
    )


def _aligned(packed: Tensor, rows: _Rows, first: int) -> Tensor:
    """(rows, length): the numbers of rows that begin at the same bit of a byte."""
    byte, skipped = divmod(first, 8 // rows.bits)
    at = rows.at + byte
    if rows.last + byte >= len(packed):  # the byte behind the last row may not be there
        at = at.clamp_(max=len(packed) - 1)
    numbers = rows.table.index_select(0, packed.take(at).int().flatten())
    return numbers.view(len(at), -1).narrow(1, skipped, rows.length)


def _shifted(packed: Tensor, rows: _Rows, first: int) -> Tensor:
    """The same of rows that do not."""
    each = 8 // rows.bits
    starts = rows.starts + first
    at = (starts // each)[:, None] + torch.arange(rows.at.shape[1], device=packed.device)
    read = packed.take(at.clamp_(max=len(packed) - 1)).int()
    pairs = read[:, :-1] | read[:, 1:] << 8
    bytes = pairs >> (starts % each * rows.bits)[:, None] & 255
    numbers = rows.table.index_select(0, bytes.flatten())
    return numbers.view(len(at), -1)[:, : rows.length]
