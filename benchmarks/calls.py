"""Every scope call of six networks on a GPU, as a share of what a copy of as many bytes takes."""

from __future__ import annotations

import itertools
import math
import statistics
import sys
from collections.abc import Callable

import torch

from .scope_calls import ScopeCall, runs, scope_calls

BATCHES = (1, 2, 9, 65)
DTYPES = (torch.float32, torch.bfloat16)
SMALL = 2  # calls of each kind in the quick run
TOGETHER = 5e-4  # seconds of work in a CUDA graph, so that its start does not count
STEPS = 2  # sizes of copies to a doubling


def run(device: torch.device, quick: bool = False) -> list[dict]:
    """A row per call, operator, batch, dtype and format: its microseconds, and the time of a copy
    that moves as many bytes over its own.

    Pointwise scopes take elements in the order of memory: they know no formats.
    """
    calls = scope_calls()
    if quick:
        calls = _some(calls)
    copies = Copies(device)
    rows = []
    for call, network in calls.items():
        print(f"benchmarks: {network}, {call.kind} {call}", file=sys.stderr)
        for dtype in DTYPES:
            for batch in BATCHES[:2] if quick else BATCHES:
                for last in (False, True) if call.kind in ("pool", "norm") else (False,):
                    rows += _rows(call, network, batch, dtype, last, copies)
    return rows


def _some(calls: dict[ScopeCall, str]) -> dict[ScopeCall, str]:
    kinds = dict.fromkeys(call.kind for call in calls)
    return {
        call: network
        for kind in kinds
        for call, network in [i for i in calls.items() if i[0].kind == kind][:SMALL]
    }


def _rows(
    call: ScopeCall, network: str, batch: int, dtype: torch.dtype, last: bool, copies: Copies
) -> list[dict]:
    generator = torch.Generator(copies.device).manual_seed(0)
    x = torch.randn(batch, *call.shape, generator=generator, device=copies.device).to(
        dtype, memory_format=torch.channels_last if last else torch.contiguous_format
    )
    rows = []
    for operator, work, moved in runs(call, x):
        seconds = seconds_of(work, copies.expected(moved))
        rows.append(
            {
                "network": network,
                "call": str(call),
                "operator": operator,
                "batch": batch,
                "dtype": str(dtype).removeprefix("torch."),
                "format": "channels_last" if last else "contiguous",
                "MB": moved / 1e6,
                "us": 1e6 * seconds,
                "of a copy": copies(moved) / seconds,
            }
        )
    return rows


class Copies:
    """Seconds of a copy on the device that reads and writes so many bytes in all, by those of some
    sizes.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.known: dict[int, float] = {}

    def __call__(self, moved: int) -> float:
        place = STEPS * math.log2(max(2, moved))
        low, high = (
            self._of(2 ** (step / STEPS)) for step in (math.floor(place), math.ceil(place))
        )
        return low + (high - low) * (place % 1)

    def _of(self, moved: float) -> float:
        half = round(moved / 2)
        if half not in self.known:
            source = torch.randint(256, (half,), dtype=torch.uint8, device=self.device)
            target = torch.empty_like(source)
            self.known[half] = seconds_of(lambda: target.copy_(source), self.expected(round(moved)))
        return self.known[half]

    @staticmethod
    def expected(moved: int) -> float:
        return 2e-6 + moved / 2e12


def seconds_of(work: Callable[[], object], expected: float, rounds: int = 7) -> float:
    """The median time of one call in a CUDA graph of many."""
    calls = max(1, min(200, round(TOGETHER / expected)))
    work()
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    # Not torch.cuda.graph(), which collects garbage and gives all memory back each time.
    with torch.cuda.stream(stream):
        graph.capture_begin()
        for _ in range(calls):
            work()
        graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    graph.replay()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 1)]
    marks[0].record()
    for mark in marks[1:]:
        graph.replay()
        mark.record()
    torch.cuda.synchronize()
    taken = [a.elapsed_time(b) / 1e3 / calls for a, b in itertools.pairwise(marks)]
    return statistics.median(taken)
