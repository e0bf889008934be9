"""The emulator finds each seeded mistake in the build that should, and none in its repair."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from typing import NamedTuple

import pytest

from emulator import build
from emulator.client import Crash, Result, emulator
from emulator.worker import INPUT, OUTPUT, Buffer, Call

pytestmark = pytest.mark.skipif(build.missing() is not None, reason=str(build.missing()))

THREADS, SIZE = 64, 128
ORDERS = (0, 1, 2, 3, 4)

# Small whole numbers, so that sums are exact in any order.
X = [float((7 * i) % 23 - 11) for i in range(SIZE)]


def block(i: int) -> list[float]:
    return X[i // THREADS * THREADS :][:THREADS]


def warp(i: int) -> list[float]:
    return X[i // 32 * 32 :][:32]


def reverse(i: int) -> float:
    return block(i)[THREADS - 1 - i % THREADS]


class Bug(NamedTuple):
    """What each build says of a mistake, and what its repair computes for thread i."""

    expected: Callable[[int], float]
    trace: str | None = None
    fast: str | None = None
    asan: str | None = None


OVERFLOW = "heap-buffer-overflow|use-after-poison"

BUGS = {
    "missing_barrier": Bug(lambda i: 3 * sum(block(i)), "shared memory race"),
    "divergent_barrier": Bug(reverse, *["divergent barrier"] * 3),
    "full_mask_in_a_branch": Bug(
        lambda i: X[i + 1] if i % 32 < 20 else X[i], *["deadlock: threads wait here"] * 3
    ),
    "lane_outside_of_its_mask": Bug(
        lambda i: sum(v > 0 for v in warp(i)), *["wrong mask: it does not name"] * 3
    ),
    "source_outside_of_the_mask": Bug(
        lambda i: X[i + 1] if i % 32 < 15 else X[i], *["shuffle from a lane outside"] * 3
    ),
    "shared_write_out_of_bounds": Bug(
        reverse, "shared access out of bounds", "shared write out of bounds", OVERFLOW
    ),
    "shared_read_out_of_bounds": Bug(reverse, "shared access out of bounds", "NaN", OVERFLOW),
    "dynamic_shared_out_of_bounds": Bug(
        reverse, "shared access out of bounds", "shared write out of bounds", OVERFLOW
    ),
    "global_write_off_by_one": Bug(
        lambda i: X[i], "global write out of bounds", "write out of bounds of out", OVERFLOW
    ),
    "global_read_off_by_one": Bug(
        lambda i: (X + [0.0])[i + 1], "global read out of bounds", "NaN", OVERFLOW
    ),
    "uninitialised_shared_read": Bug(reverse, "read of uninitialised shared memory", "NaN", "NaN"),
    "missing_syncwarp": Bug(lambda i: X[i ^ 1], "shared memory race", "NaN", "NaN"),
    "syncwarp_of_the_wrong_lanes": Bug(lambda i: X[i ^ 31], "shared memory race", "NaN", "NaN"),
    "misaligned_vector": Bug(
        lambda i: X[i], "misaligned access", "misaligned address", "misaligned address"
    ),
    "lost_update": Bug(lambda i: sum(X) if i == 0 else 0.0, "global memory race"),
    "blocks_write_the_same": Bug(lambda i: X[i], "global memory race", "NaN", "NaN"),
    "write_to_an_input": Bug(lambda i: X[i], "write to an input"),
    "too_much_shared_memory": Bug(lambda i: 2 * X[i], *["more shared memory"] * 3),
    "another_stream": Bug(lambda i: X[i], *["a launch on another stream"] * 3),
}


def launch(name: str, build_name: str, fixed: bool, order: int) -> Result:
    content = struct.pack(f"{SIZE}f", *X)
    buffers: list[Buffer | None] = [
        Buffer("x", INPUT, len(content), 0, content),
        Buffer("out", OUTPUT, len(content), 0),
    ]
    return emulator(build_name).send(Call(name, 0, [int(fixed)], [], buffers, order))


def values(result: Result) -> list[float]:
    return list(struct.unpack(f"{SIZE}f", result.contents[0]))


def findings(name: str, build_name: str, order: int) -> str:
    """All that a build has to say of a mistake."""
    try:
        result = launch(name, build_name, False, order)
    except Crash as crash:
        return str(crash)
    nan = ["NaN"] if any(map(math.isnan, values(result))) else []
    return "\n".join([*map(str, result.faults), *nan])


@pytest.mark.parametrize("name", BUGS)
@pytest.mark.parametrize("build_name", ["fast", "portable", "asan", "trace"])
def test_repaired_kernel_is_right_and_reports_nothing(name: str, build_name: str) -> None:
    for order in ORDERS:
        result = launch(name, build_name, True, order)
        assert result.faults == []
        assert values(result) == [BUGS[name].expected(i) for i in range(SIZE)]


@pytest.mark.parametrize(
    ("name", "build_name", "text"),
    [
        (name, build_name, text)
        for name, bug in BUGS.items()
        for build_name, text in zip(
            ("trace", "fast", "portable", "asan"),
            (bug.trace, bug.fast, bug.fast, bug.asan),
            strict=True,
        )
        if text
    ],
)
def test_mistake_is_found(name: str, build_name: str, text: str) -> None:
    # Whether a stale or an absent value is read may depend on the order; what is told of the
    # program does not.
    orders = ORDERS if text == "NaN" else ORDERS[:1]
    said = "\n".join(findings(name, build_name, order) for order in orders)
    assert re.search(text, said)


@pytest.mark.parametrize("order", ORDERS)
def test_races_are_found_in_every_order(order: int) -> None:
    for name in ("missing_barrier", "missing_syncwarp", "lost_update", "blocks_write_the_same"):
        assert "race" in findings(name, "trace", order)


def test_faults_name_the_line_of_the_kernel() -> None:
    source = (build.HERE / "kernels" / "bugs.cuh").read_text().splitlines()
    for build_name, name, statement in (
        ("trace", "lost_update", "out[0] += x[index()];"),
        ("trace", "write_to_an_input", "const_cast<float*>(x)[index()] = 0;"),
        ("trace", "shared_read_out_of_bounds", "out[index()] = *(end - threadIdx.x"),
        ("fast", "full_mask_in_a_branch", "value = __shfl_down_sync(0xffffffffu, value, 1);"),
    ):
        file, line = launch(name, build_name, False, 0).faults[0].place.split(":")
        assert file == "bugs.cuh"
        assert statement in source[int(line) - 1]


def test_a_worker_that_died_is_replaced() -> None:
    with pytest.raises(Crash):
        launch("misaligned_vector", "asan", False, 0)
    assert launch("misaligned_vector", "asan", True, 0).faults == []
