"""The part of a packed decision that lies in a box."""

from __future__ import annotations

from functools import cache
from math import prod

import torch
from torch import Tensor

from .box import Box, sizes


def codes(decision: Tensor, bits: int, shape: tuple[int, ...], box: Box, last: bool) -> Tensor:
    """The small numbers of one sample, (1, *shape), that a decision (1, bytes) holds in the order
    of memory, `last`: channels last; of a box, as uint8.

    A box is rows of entries that lie one after the other. Their bytes are taken, and the bits of
    each byte looked up.
    """
    order = [*range(2, len(shape)), 1] if last else list(range(1, len(shape)))
    extents, places = [shape[d] for d in order], [box[d] for d in order]
    strides = [prod(extents[i + 1 :]) for i in range(len(extents))]
    inner = len(order) - 1
    while inner > 0 and places[inner] == (0, extents[inner]):
        inner -= 1  # whole rows, one after the other, are one row
    starts = torch.full((1,), places[inner][0] * strides[inner], device=decision.device)
    for (a, b), stride in zip(places[:inner], strides[:inner], strict=True):
        along = torch.arange(a * stride, b * stride, stride, device=decision.device)
        starts = (starts[:, None] + along).flatten()
    length = (places[inner][1] - places[inner][0]) * strides[inner]
    found = _rows(decision[0], bits, starts, length)
    found = found.reshape([b - a for a, b in places])
    if last:
        found = found.movedim(-1, 0)
    return found.reshape(sizes(box))


def _rows(packed: Tensor, bits: int, starts: Tensor, length: int) -> Tensor:
    """(rows, length): the numbers from each start on."""
    each = 8 // bits
    first, skipped = starts // each, starts % each
    count = -(-length // each)
    steps = torch.arange(count + 1, device=packed.device)
    # The byte behind the last is read where a row does not start with a byte; it may not be there.
    at = (first[:, None] + steps).clamp_(max=len(packed) - 1)
    read = packed[at].int()
    pairs = read[:, :-1] | read[:, 1:] << 8
    aligned = (pairs >> (skipped * bits)[:, None]) & 255
    table = _table(bits, packed.device)
    return table.index_select(0, aligned.flatten()).view(len(starts), -1)[:, :length]


@cache
def _table(bits: int, device: torch.device) -> Tensor:
    """(256, 8 / bits): the numbers in a byte, lowest bits first."""
    shifts = torch.arange(0, 8, bits, device=device)
    return ((torch.arange(256, device=device)[:, None] >> shifts) & (2**bits - 1)).to(torch.uint8)
