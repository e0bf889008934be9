"""What the kernels ask of memory, over the fewest bytes that the operation needs.

Counted by the emulator's trace: a warp's request moves whole sectors of 32 bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from emulator import build
from emulator.client import emulator
from emulator.operators import DTYPES, Operators
from linscope_cuda.operators.reference import memory_format, wide_dtype

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


def anew(probes: int) -> int:
    """How many times x0 is read again, from the cache: where blocks are few, each takes a probe."""
    return max(probes - 1, 0)


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
        assert sum(SECTOR * f.sectors for f in elements) == size(x, y) + anew(probes) * size(x[:1])


@dtypes
@probe_counts
def test_gate_moves_only_what_it_must(dtype: torch.dtype, probes: int) -> None:
    operators, x = Operators(emulator("trace")), batch(probes, dtype)
    y, gate = operators.gate_scope(x, 1, 0)
    assert moved(operators) == size(x, y, gate) + anew(probes) * size(x[:1])
    assert moved(operators, distinct=True) == size(x, y, gate)


@dtypes
@formats
@probe_counts
def test_pool_moves_only_what_it_must(dtype: torch.dtype, channels_last: bool, probes: int) -> None:
    # Neighbouring windows meet in a sector, so sectors are counted once: on chip there is room for
    # the few rows between. Of the probes at most everything is taken.
    operators, x = Operators(emulator("trace")), batch(probes, dtype, channels_last)
    for window in (([2, 2], [2, 2], [0, 0], [1, 1]), ([3, 3], [2, 2], [1, 1], [1, 1])):
        y, decision = operators.max_pool2d_scope(x, 1, *window, False)
        floor = size(x, y, decision)
        assert moved(operators, distinct=True) <= 1.02 * floor
        operators.max_pool2d_frozen(x, decision, *window)
        assert moved(operators, distinct=True) <= 1.02 * floor
        operators.max_pool2d_frozen_transpose(y, decision, [16, 16], *window)
        assert moved(operators, distinct=True) <= 1.02 * floor


@dtypes
@formats
@probe_counts
def test_instance_norm_reads_planes_that_fit_on_chip_once(
    dtype: torch.dtype, channels_last: bool, probes: int
) -> None:
    x = batch(probes, dtype, channels_last)
    for shared_limit in (227 * 1024, 0):
        operators = Operators(emulator("trace"), shared_limit=shared_limit)
        y, _, _ = operators.instance_norm_scope(x, 1, None, None, 1e-5)
        on_chip = not channels_last and shared_limit > 0 and probes <= 4
        # All but what there is one of to a plane. A thread looks at its first pack twice.
        floor = size(x, y) + (0 if on_chip else size(x[:1]))
        flows = [f for f in operators.result.flows if f.buffer in "xy"]
        taken = sum(SECTOR * f.sectors for f in flows)
        assert floor <= taken <= floor + size(x[:1])
        assert sum(SECTOR * f.distinct for f in flows) == size(x, y)


def read(operators: Operators, buffer: str) -> int:
    flows = operators.result.flows
    return sum(SECTOR * f.sectors for f in flows if f.buffer == buffer and not f.write)


@dtypes
@formats
@probe_counts
def test_frozen_scopes_move_only_what_they_must(
    dtype: torch.dtype, channels_last: bool, probes: int
) -> None:
    operators, x = Operators(emulator("trace")), batch(probes, dtype, channels_last)
    _, bits = operators.relu_scope(x[:1], 1, 0.0, channels_last)
    _, pieces = operators.clamp_scope(x[:1], 1, 0.0, 1.0, channels_last)
    scale = torch.ones(1, 32, dtype=wide_dtype(dtype))
    frozen: list[Callable] = [
        lambda: operators.relu_frozen(x, bits, 0.0, channels_last),
        lambda: operators.clamp_frozen(x, pieces, 0.0, 1.0, channels_last),
        lambda: operators.gate_frozen(x, x[:1], 0.0),
        lambda: operators.instance_norm_frozen(x, scale, scale, scale),
    ]
    for run, decided in zip(frozen, (bits, pieces, x[:1], scale), strict=True):
        y = run()
        assert moved(operators, distinct=True) <= 1.02 * size(x, y, decided) + 2 * size(scale)
        assert read(operators, "x") == size(x)


@dtypes
@probe_counts
def test_backward_reads_everything_once_and_once_more_after_sums(
    dtype: torch.dtype, probes: int
) -> None:
    operators, x = Operators(emulator("trace")), batch(probes, dtype)
    operators.gate_scope_backward(x, x, 1, 0)
    assert moved(operators) == 3 * size(x)
    # No gradient can be written before the sums over all of them are known.
    statistics = torch.ones(1, 32, dtype=wide_dtype(dtype))
    operators.instance_norm_scope_backward(x, x, statistics, statistics, None)
    assert read(operators, "grad_y") == 2 * size(x)
    assert read(operators, "x") == size(x) + size(x[:1])


class Moved(TorchDispatchMode):
    """Bytes of what torch's functions take and give; views move nothing."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
            self.total += sum(size(t) for t in tensors if t.dim())
        return result


def test_relu_scope_moves_16_bytes_where_eager_torch_moves_38() -> None:
    operators, x = Operators(emulator("trace")), batch(1, torch.float32)
    n = x[0].numel()
    with Moved() as eager:
        x0, x1 = x.chunk(2)
        wanted = torch.cat([x0.relu(), torch.where(x0 > 0, x1, 0)])
    assert eager.total == 38 * n
    y, decision = operators.relu_scope(x, 1, 0.0, False)
    assert torch.equal(y, wanted)
    assert moved(operators, distinct=True) == 16 * n + size(decision)


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
