"""What the kernels ask of memory, over the fewest bytes that the operation needs.

Counted by the emulator's trace: a warp's request moves whole sectors of 32 bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from emulator import build
from emulator.client import emulator
from emulator.operators import DTYPES, Operators
from torch import Tensor

from linscope_cuda.reference import memory_format

pytestmark = pytest.mark.skipif(build.missing() is not None, reason=str(build.missing()))

SECTOR = 32


def batch(probes: int, dtype: torch.dtype, channels_last: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1 + probes, 32, 16, 16, generator=generator).to(dtype)
    return x.contiguous(memory_format=memory_format(channels_last))


def moved(operators: Operators, distinct: bool = False) -> int:
    """Bytes in all sectors that the last launch's requests took."""
    flows = operators.result.flows
    return sum(SECTOR * (f.distinct if distinct else f.sectors) for f in flows)


def size(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
formats = pytest.mark.parametrize("channels_last", [False, True])
probe_counts = pytest.mark.parametrize("probes", [1, 4, 16])


@dtypes
@formats
@probe_counts
def test_relu_and_clamp_move_only_what_they_must(
    dtype: torch.dtype, channels_last: bool, probes: int
) -> None:
    operators, x = Operators(emulator("trace")), batch(probes, dtype, channels_last)
    scopes: list[Callable] = [
        lambda: operators.relu_scope(x, 1, 0.0, channels_last),
        lambda: operators.clamp_scope(x, 1, 0.0, 1.0, channels_last),
    ]
    for scope in scopes:
        y, decision = scope()
        # A warp's decisions are fewer bytes than a sector where elements are wide.
        assert moved(operators, distinct=True) <= 1.02 * size(x, y, decision)
        elements = [f for f in operators.result.flows if f.buffer != "decision"]
        assert sum(SECTOR * f.sectors for f in elements) == size(x, y)


@dtypes
@probe_counts
def test_gate_moves_only_what_it_must(dtype: torch.dtype, probes: int) -> None:
    operators, x = Operators(emulator("trace")), batch(probes, dtype)
    y, gate = operators.gate_scope(x, 1, 0)
    assert moved(operators) == size(x, y, gate)


@dtypes
@formats
def test_pool_without_overlap_moves_only_what_it_must(
    dtype: torch.dtype, channels_last: bool
) -> None:
    operators, x = Operators(emulator("trace")), batch(1, dtype, channels_last)
    x = x[:1]  # a probe's winners lie apart: what they take depends on the data
    y, decision = operators.max_pool2d_scope(x, 1, [2, 2], [2, 2], [0, 0], [1, 1], False)
    assert moved(operators, distinct=True) <= 1.02 * size(x, y, decision)


@dtypes
@probe_counts
def test_instance_norm_reads_a_plane_that_fits_on_chip_once(
    dtype: torch.dtype, probes: int
) -> None:
    x = batch(probes, dtype)
    for shared_limit, reads_of_x0 in ((227 * 1024, 1), (0, 2)):
        operators = Operators(emulator("trace"), shared_limit=shared_limit)
        y, _, _ = operators.instance_norm_scope(x, 1, None, None, 1e-5)
        floor = size(x, y) + (reads_of_x0 - 1) * size(x[:1])
        flows = [f for f in operators.result.flows if f.buffer in "xy"]
        assert sum(SECTOR * f.sectors for f in flows) == floor


@dtypes
def test_wide_accesses_take_16_bytes(dtype: torch.dtype) -> None:
    operators, x = Operators(emulator("trace")), batch(1, dtype)
    launches: list[Callable] = [
        lambda: operators.relu_scope(x, 1, 0.0, False),
        lambda: operators.gate_scope(x, 1, 0),
        lambda: operators.instance_norm_scope(x, 1, None, None, 1e-5),
    ]
    for launch in launches:
        launch()
        widths = {s.width for s in operators.result.sites if s.bytes >= size(x[:1])}
        assert widths == {16}
