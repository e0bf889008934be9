"""Interleaved timing: all candidates in turn, round after round, so that drift meets them alike."""

from __future__ import annotations

import ctypes
import gc
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of malloc.h
_FEW_PAGES = 512  # no large tensor


class Timing(NamedTuple):
    """The median of seconds and their spread, half the range of the middle half over the median,
    of fewer than three none.
    """

    median: float
    spread: float | None


def keep_memory() -> None:
    """Memory that is freed stays with this process, as torch itself keeps a GPU's.

    The C library gives a tensor of 32 MB and more back to the system and fetches the next one
    anew: page faults, which meet all candidates alike and take several times their work.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if mallopt is not None:
        for option, value in (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1):  # never
            mallopt(option, value)


def give_back() -> None:
    """What was kept free goes back to the system: between measurements, it is a lot."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def timings(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int = 9,
    repeats: int = 1,
    limit: float = float("inf"),
    warming: int = 1,
) -> dict[str, Timing]:
    """The timing of each candidate, after rounds that are not counted.

    `repeats`: calls timed together, for those that return before a device has done its work.
    `limit`: seconds after which no further round begins; one is always counted.
    `warming`: how many rounds to leave out at most, until one fetches no memory from the system.
    """
    for _ in range(warming):
        fetched = _fetched()
        for run in candidates.values():
            _seconds(run, repeats)
        if _fetched() - fetched < _FEW_PAGES:
            break
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    began = time.perf_counter()
    for round in range(rounds):
        if round and time.perf_counter() - began > limit:
            break
        for name, run in candidates.items():
            taken[name].append(_seconds(run, repeats))
    return {name: _timing(times) for name, times in taken.items()}


def _seconds(run: Callable[[], object], repeats: int) -> float:
    _synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    _synchronize()
    return (time.perf_counter() - start) / repeats


def _fetched() -> int:
    """Pages of memory that the system has given so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _timing(times: list[float]) -> Timing:
    median = statistics.median(times)
    if len(times) < 3:
        return Timing(median, None)
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(median, (high - low) / 2 / median)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
