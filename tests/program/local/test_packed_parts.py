"""Boxes of packed decisions, against unpacking all of it."""

import random

import pytest
import torch
from place import here

from linscope_cuda.operators.reference import pack, unpack
from linscope_cuda.program.local.bits import codes


@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (1, 2, 8, 16), (1, 5, 3), (1, 6, 2, 3, 5), (1, 9)])
@pytest.mark.parametrize("bits", [1, 2])
@pytest.mark.parametrize("last", [False, True])
def test_boxes(shape, bits, last):
    rng = random.Random(0)
    pieces = here(torch.randint(0, 2**bits, shape, generator=torch.Generator().manual_seed(0)))
    packed = pack(pieces, bits, last)
    whole = unpack(packed, bits, shape[1:], last)
    for _ in range(30):
        box = [(0, 1)]
        for n in shape[1:]:
            start = rng.randrange(n) if rng.random() < 0.7 else 0
            box.append((start, rng.randint(start + 1, n)))
        got = codes(packed, bits, shape, tuple(box), last)
        assert got.dtype == torch.uint8
        assert torch.equal(got, whole[tuple(slice(*b) for b in box)])
