"""Indices beyond 2^31: the index functions alone, and kernels on batches that only seem there.

A sparse buffer has its full size in addresses and only the touched pages in memory. Of the grid,
only the blocks run that have the places which are looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
import torch

from emulator import build
from emulator.client import Result, emulator
from emulator.operators import DTYPES, SHARED_LIMIT
from emulator.worker import INPUT, OUTPUT, SPARSE, Buffer, Call

pytestmark = pytest.mark.skipif(build.missing() is not None, reason=str(build.missing()))

HALF = DTYPES.index(torch.float16)
EDGE = 2**31
PIECE = 512  # elements looked at on either side


@pytest.mark.parametrize("channels_last", [0, 1])
@pytest.mark.parametrize(
    ("planes", "limit"),
    [
        ((3, 1000, 357913), 2**40),
        ((1, 1, 2**30), 2**40),
        ((3, 40000, 50000), 2**40),
        ((70000, 300, 300), 2**40),
        ((1, 2**31 - 1, 1), 2**40),
        ((2**20, 1, 2**20), 2**45),
    ],
)
def test_every_item_has_its_own_place(
    planes: tuple[int, ...], limit: int, channels_last: int
) -> None:
    # Items are numbered in the order of memory: the place of one is its own number.
    generator = torch.Generator().manual_seed(0)
    edges = [e + d for e in (2**24, 2**30, EDGE, 2**32, limit) for d in (-2, -1, 0, 1)]
    items = [i for i in [0, 1, *edges] if i < limit]
    items += torch.randint(limit, (200,), generator=generator).tolist()
    for name in ("fast", "asan"):
        call = numbers("places", [*planes, channels_last, len(items)], [items], len(items))
        assert whole_numbers(emulator(name).run(call)) == items


def numbers(launcher: str, integers: list[int], given: Sequence[list[int]], results: int) -> Call:
    """A launcher's call on whole numbers of 64 bits."""
    contents = [struct.pack(f"{len(n)}q", *n) for n in given]
    buffers: list[Buffer | None] = [
        Buffer(f"in{i}", INPUT, len(content), 0, content) for i, content in enumerate(contents)
    ]
    return Call(launcher, 0, integers, [], [*buffers, Buffer("out", OUTPUT, 8 * results, 0)])


def whole_numbers(result: Result) -> list[int]:
    (content,) = result.contents
    return list(struct.unpack(f"{len(content) // 8}q", content))


def test_division_by_multiplication() -> None:
    generator = torch.Generator().manual_seed(0)
    near = [2**k + d for k in (1, 2, 5, 16, 30, 31, 32, 40) for d in (-1, 0, 1)]
    divisors = [d for d in [1, 3, 7, 49, 12544, *near] if d > 0]
    pairs = [
        (n, d)
        for d in divisors
        for n in [0, 1, d - 1, d, d + 1, 7 * d - 1, 2**31 - 1, 2**31, 2**31 + 1, 2**50]
    ]
    for high in (2**16, 2**31, 2**45):
        drawn = torch.randint(1, high, (2, 300), generator=generator).tolist()
        pairs += list(zip(*drawn, strict=True))
    given = [list(column) for column in zip(*pairs, strict=True)]
    call = numbers("divisor", [len(pairs)], given, 2 * len(pairs))
    wanted = [part for n, d in pairs for part in divmod(n, d)]
    assert whole_numbers(emulator("fast").run(call)) == wanted


def pieces(places: Sequence[int]) -> dict[int, torch.Tensor]:
    """Random float16 values for PIECE elements from each place on."""
    generator = torch.Generator().manual_seed(1)
    return {at: torch.randn(PIECE, generator=generator).half() for at in places}


def launch(
    launcher: str,
    integers: list[int],
    inputs: Sequence[dict[int, torch.Tensor] | None],
    size: int,
    places: Sequence[int],
    tile: int,
    reals: Sequence[float] = (),
    extra: Sequence[Buffer | None] = (),
    order: Sequence[int] | None = None,
    block: int | None = None,
) -> list[torch.Tensor]:
    """Runs, on float16 batches of `size` elements, the block that has each place, of those that
    take `tile` elements each, or block `block`; the output around each place.

    Buffers are the inputs, the output and the extra ones, in the launcher's `order`.
    """
    buffers: list[Buffer | None] = []
    for i, values in enumerate(inputs):
        content = None if values is None else {2 * k: bytes_of(v) for k, v in values.items()}
        buffers.append(None if content is None else Buffer(f"in{i}", SPARSE, 2 * size, 0, content))
    output = len(buffers)
    buffers += [Buffer("out", SPARSE, 2 * size, 0), *extra]
    order = order or range(len(buffers))
    found = []
    for at in places:
        first = at // tile if block is None else block
        wanted = [(list(order).index(output), 2 * at, 2 * PIECE)]
        given = [buffers[i] for i in order]
        blocks = (first, first + 1)
        result = emulator("fast").run(
            Call(launcher, HALF, integers, list(reals), given, 0, blocks, wanted)
        )
        found += [torch.frombuffer(bytearray(c), dtype=torch.float16) for c in result.contents]
    return found


def bytes_of(t: torch.Tensor) -> bytes:
    return t.view(torch.uint8).numpy().tobytes()


# Elements that a block takes: 256 threads' packs, of eight elements in samples that are a multiple
# of eight, otherwise of one.
def tile(packs: int, odd: int) -> int:
    return 256 * packs * (1 if odd else 8)


widths = pytest.mark.parametrize("odd", [0, 1], ids=["wide", "narrow"])


@widths
def test_relu(odd: int) -> None:
    size, at = EDGE + 8192 + odd, [0, EDGE]
    x = pieces(at)
    decision = Buffer("decision", SPARSE, size // 8 + 1, 0)
    y = launch("relu_scope", [1, 1, size], [x], size, at, tile(2, odd), [0.0], [decision])
    for got, place in zip(y, at, strict=True):
        assert torch.equal(got, x[place].clamp(min=0))


def test_relu_of_many_samples() -> None:
    # Two references with three probes; the last sample lies beyond 2^32.
    size, samples = 2**29 + 8, 8
    at = [s * size for s in range(samples)]
    x = pieces(at)
    decision = Buffer("decision", SPARSE, 2 * (size // 8), 0)
    integers = [samples, 2, size]
    arguments = "relu_scope", integers, [x], samples * size, at, tile(2, 0), [0.0], [decision]
    y = launch(*arguments, block=0)
    for s, got in enumerate(y):
        if s % 2 == 0:  # block 0 is the first reference's
            assert torch.equal(got, torch.where(x[0] > 0, x[at[s]], 0))
        else:
            assert not got.any()


@widths
def test_gate(odd: int) -> None:
    size, at = EDGE + 8192 + odd, [0, EDGE]
    x, gate = pieces(at), pieces(at[::-1])
    y = launch("gate_frozen", [1, 1, size], [x, gate], size, at, tile(2, odd), [0.0])
    for got, place in zip(y, at, strict=True):
        wanted = x[place].float() * gate[place].float()
        assert torch.equal(got, wanted.half())


@widths
def test_instance_norm_frozen(odd: int) -> None:
    size, at = EDGE + 8192 + odd, [0, EDGE]
    x, scale = pieces(at), struct.pack("f", 0.5)
    extra = [Buffer("scale", INPUT, 4, 0, scale)]
    # x, mean, scale, shift, y
    integers, order = [1, 1, 1, size, 0], [0, 1, 4, 2, 3]
    packs = 4 if odd else 2
    arguments = [x, None, None], size, at, tile(packs, odd), (), extra, order
    y = launch("instance_norm_frozen", integers, *arguments)
    for got, place in zip(y, at, strict=True):
        assert torch.equal(got, x[place] / 2)


def test_instance_norm_of_a_late_plane() -> None:
    channels, area = EDGE // PIECE + 1, PIECE
    at = (channels - 1) * area
    x = pieces([at])
    extra = [Buffer(name, SPARSE, 4 * channels, 0) for name in ("mean", "rstd")]
    extra.append(Buffer("workspace", SPARSE, 2**32, 0))
    integers = [1, 1, channels, area, 0, SHARED_LIMIT]
    arguments = [x, None, None], channels * area, [at], area, [0.0], extra
    (y,) = launch("instance_norm_scope", integers, *arguments)  # a block for each plane
    values = x[at].double()
    wanted = (values - values.mean()) / values.std(unbiased=False)
    torch.testing.assert_close(y.double(), wanted, rtol=2e-3, atol=2e-3)


def test_max_pool2d() -> None:
    # Windows of two pixels, one below the other, in columns of 2^15.
    width, rows = 2**15, 2**16 + 2
    size, at = rows * width, [0, EDGE]
    x = pieces([place + row * width for place in at for row in (0, 1)])
    decision = Buffer("decision", SPARSE, size, 0)
    window = [2, 1, 1, 1, 0, 0, 1, 1]
    integers = [1, 1, 1, 0, rows, width, rows - 1, width, *window]
    y = launch("max_pool2d_scope", integers, [x], size, at, 256, (), [decision])
    for got, place in zip(y, at, strict=True):
        wanted = torch.maximum(x[place], x[place + width])
        assert torch.equal(got[:256], wanted[:256])


def test_max_pool2d_transpose() -> None:
    width, rows = 2**15, 2**16 + 1
    size = rows * width
    at = [0, EDGE]
    u = pieces(at)
    decision = Buffer("decision", SPARSE, size, 0)
    window = [1, 1, 1, 1, 0, 0, 1, 1]
    integers = [1, 1, 1, 0, rows, width, rows, width, *window]
    order = [0, 2, 1]  # u, decision, x
    x = launch("max_pool2d_frozen_transpose", integers, [u], size, at, 256, (), [decision], order)
    for got, place in zip(x, at, strict=True):
        assert torch.equal(got[:256], u[place][:256])
