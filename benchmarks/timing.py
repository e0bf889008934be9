"""Interleaved timing: all candidates in turn, round after round, so that drift meets them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def seconds(
    candidates: Mapping[str, Callable[[], object]], rounds: int = 9, repeats: int = 1
) -> dict[str, float]:
    """The median seconds of each candidate, after one uncounted round.

    `repeats`: calls timed together, for those that return before a device has done its work.
    """
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for round in range(rounds + 1):
        for name, run in candidates.items():
            _synchronize()
            start = time.perf_counter()
            for _ in range(repeats):
                run()
            _synchronize()
            if round:
                taken[name].append((time.perf_counter() - start) / repeats)
    return {name: statistics.median(times) for name, times in taken.items()}


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
