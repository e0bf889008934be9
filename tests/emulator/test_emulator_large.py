"""Indices beyond 2^31: the index functions alone, and kernels on batches that only seem there.

A sparse buffer has its full size in addresses and only the touched pages in memory. Of the grid, a
few blocks run, which the grid's stride leads to both sides of 2^31.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
import torch

from emulator import build
from emulator.client import emulator
from emulator.operators import DTYPES, SHARED_LIMIT
from emulator.worker import INPUT, OUTPUT, SPARSE, Buffer, Call

pytestmark = pytest.mark.skipif(build.missing() is not None, reason=str(build.missing()))

HALF = DTYPES.index(torch.float16)
EDGE = 2**31
PIECE = 512  # elements looked at on either side


@pytest.mark.parametrize("channels_last", [0, 1])
@pytest.mark.parametrize(
    ("launcher", "planes", "limit"),
    [
        # The grid's step is added once to an index that is below 2^30 items.
        ("places_32", (3, 1000, 357913), 2**30 + 2**28),
        ("places_32", (1, 1, 2**30), 2**30 + 2**28),
        ("places_64", (3, 40000, 50000), 2**40),
        ("places_64", (70000, 300, 300), 2**40),
        ("places_64", (1, 2**31 - 1, 1), 2**40),
        ("places_64", (2**20, 1, 2**20), 2**45),
    ],
)
def test_every_item_has_its_own_place(
    launcher: str, planes: tuple[int, ...], limit: int, channels_last: int
) -> None:
    # Items are numbered in the order of memory: the place of one is its own number.
    generator = torch.Generator().manual_seed(0)
    edges = [e + d for e in (2**24, 2**30, EDGE, 2**32, limit) for d in (-2, -1, 0, 1)]
    items = [i for i in [0, 1, *edges] if i < limit]
    items += torch.randint(limit, (200,), generator=generator).tolist()
    content = struct.pack(f"{len(items)}q", *items)
    buffers = [Buffer("items", INPUT, len(content), 0, content)]
    buffers.append(Buffer("places", OUTPUT, len(content), 0))
    call = Call(launcher, 0, [*planes, channels_last, len(items)], [], list(buffers))
    for name in ("fast", "asan"):
        result = emulator(name).run(call)
        assert list(struct.unpack(f"{len(items)}q", result.contents[0])) == items


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
    block: int,
    reals: Sequence[float] = (),
    extra: Sequence[Buffer | None] = (),
    order: Sequence[int] | None = None,
) -> list[torch.Tensor]:
    """Runs one block on float16 batches of `size` elements; the output around each place.

    Buffers are the inputs, the output and the extra ones, in the launcher's `order`.
    """
    buffers: list[Buffer | None] = []
    for i, values in enumerate(inputs):
        content = None if values is None else {2 * k: bytes_of(v) for k, v in values.items()}
        buffers.append(None if content is None else Buffer(f"in{i}", SPARSE, 2 * size, 0, content))
    output = len(buffers)
    buffers += [Buffer("out", SPARSE, 2 * size, 0), *extra]
    order = order or range(len(buffers))
    wanted = [(list(order).index(output), 2 * at, 2 * PIECE) for at in places]
    call = Call(
        launcher,
        HALF,
        integers,
        list(reals),
        [buffers[i] for i in order],
        0,
        (block, block + 1),
        wanted,
    )
    result = emulator("fast").run(call)
    return [torch.frombuffer(bytearray(c), dtype=torch.float16) for c in result.contents]


def bytes_of(t: torch.Tensor) -> bytes:
    return t.view(torch.uint8).numpy().tobytes()


# Block 0 takes the elements from 0 on, and, a whole grid's step further, those from 2^31 on.
@pytest.mark.parametrize("odd", [0, 1], ids=["wide", "narrow"])
def test_relu(odd: int) -> None:
    size = EDGE + 2048 + odd
    # One element per thread has a step of 2^28, eight of 2^31; a block takes 256 or 2048.
    at = [0, EDGE] if odd == 0 else [0, 2**28, EDGE]
    x = pieces(at)
    decision = Buffer("decision", SPARSE, size // 8 + 1, 0)
    n = 256 if odd else PIECE
    y = launch("relu_scope", [1, 1, size], [x], size, at, 0, [0.0], [decision])
    for got, place in zip(y, at, strict=True):
        assert torch.equal(got[:n], x[place].clamp(min=0)[:n])


def test_relu_of_many_samples() -> None:
    # Two references with three probes; the last sample lies beyond 2^32.
    size, samples = 2**29 + 8, 8
    at = [s * size for s in range(samples)]
    x = pieces(at)
    decision = Buffer("decision", SPARSE, 2 * (size // 8), 0)
    integers = [samples, 2, size]
    y = launch("relu_scope", integers, [x], samples * size, at, 0, [0.0], [decision])
    for s, got in enumerate(y):
        if s % 2 == 0:  # block 0 is the first reference's
            assert torch.equal(got, torch.where(x[0] > 0, x[at[s]], 0))
        else:
            assert not got.any()


@pytest.mark.parametrize("odd", [0, 1], ids=["wide", "narrow"])
def test_gate(odd: int) -> None:
    size = EDGE + 2048 + odd
    at = [0, EDGE]
    x, gate = pieces(at), pieces(at[::-1])
    n = 256 if odd else PIECE
    y = launch("gate_frozen", [1, 1, size], [x, gate], size, at, 0, [0.0])
    for got, place in zip(y, at, strict=True):
        wanted = x[place].float() * gate[place].float()
        assert torch.equal(got[:n], wanted.half()[:n])


@pytest.mark.parametrize("odd", [0, 1], ids=["wide", "narrow"])
def test_instance_norm_frozen(odd: int) -> None:
    size = EDGE + 2048 + odd
    at = [0, EDGE]
    x, scale = pieces(at), struct.pack("f", 0.5)
    n = 256 if odd else PIECE
    extra = [Buffer("scale", INPUT, 4, 0, scale)]
    # x, mean, scale, shift, y
    integers, order = [1, 1, 1, size, 0], [0, 1, 4, 2, 3]
    y = launch("instance_norm_frozen", integers, [x, None, None], size, at, 0, (), extra, order)
    for got, place in zip(y, at, strict=True):
        assert torch.equal(got[:n], x[place][:n] / 2)


def test_instance_norm_of_a_late_plane() -> None:
    channels, area = EDGE // PIECE + 1, PIECE
    plane = channels - 1  # the block's number too
    at = plane * area
    x = pieces([at])
    planes = [Buffer(name, SPARSE, 4 * channels, 0) for name in ("mean", "rstd")]
    integers = [1, 1, channels, area, 0, SHARED_LIMIT]
    (y,) = launch(
        "instance_norm_scope",
        integers,
        [x, None, None],
        channels * area,
        [at],
        plane,
        [0.0],
        planes,
    )
    values = x[at].double()
    wanted = (values - values.mean()) / values.std(unbiased=False)
    torch.testing.assert_close(y.double(), wanted, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("rows", [2**15, 2**16 + 2], ids=["int32", "int64"])
def test_max_pool2d(rows: int) -> None:
    # Windows of two pixels, one below the other, in columns of 2^15; block 0 takes the outputs
    # from every multiple of 2^28 on.
    width = 2**15
    size = rows * width
    at = [i for i in (0, 2**28, EDGE - 2**28, EDGE) if i + width + PIECE <= size]
    assert rows < 2**16 or EDGE in at
    x = pieces([place + row * width for place in at for row in (0, 1)])
    decision = Buffer("decision", SPARSE, size, 0)
    window = [2, 1, 1, 1, 0, 0, 1, 1]
    integers = [1, 1, 1, 0, rows, width, rows - 1, width, *window]
    y = launch("max_pool2d_scope", integers, [x], size, at, 0, (), [decision])
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
    x = launch("max_pool2d_frozen_transpose", integers, [u], size, at, 0, (), [decision], order)
    for got, place in zip(x, at, strict=True):
        assert torch.equal(got[:256], u[place][:256])
