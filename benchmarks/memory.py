"""Peak memory of each way to F v and F^T u, a fresh process each: what the way keeps and what a
product takes on top.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from .networks import SMALL, Network, chosen
from .products import EVERY_WAY, PAPER
from .timing import give_back
from .ways import COMPILED, WAYS, applies

# The compiler's own memory would be counted.
LEFT_OUT = (COMPILED,)
# With one probe only: they take long.
SLOW = ("VGG-19, 224x224", "CycleGAN-9, 128x128")


def in_a_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments), by a new interpreter; MemoryError if the system ended it."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise MemoryError("the process was ended by the system") from error


def resident(field: str = "VmRSS") -> int:
    """Bytes of this process in memory: now, or at the most ("VmHWM") since `reset`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def reset() -> None:
    """Gives free memory back to the system and begins a new high-water mark."""
    give_back()
    Path("/proc/self/clear_refs").write_text("5")


class Meter:
    """Bytes now and at the most since `reset`: of the process, or of torch's allocator on CUDA."""

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self.reset()

    def reset(self) -> None:
        reset()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()

    def now(self) -> int:
        return torch.cuda.memory_allocated() if self.cuda else resident()

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated() if self.cuda else resident("VmHWM")


def measure(network: str, way: str, device: str, small: bool, probes: int) -> dict[str, float]:
    """MB kept by the way after a product of each kind, and the peak of a product, over what the
    process held before the way was made.
    """
    model, x0 = _networks(small)[network].make(device)
    with torch.no_grad():
        y = model(x0)  # and torch's own memory is in place
    x, u = (torch.randn(probes, *t.shape[1:]).to(t) for t in (x0, y))
    meter = Meter(x0.device)
    before = meter.now()
    system = WAYS[way].make(model, x0, probes)
    made = {}
    for product in WAYS[way].products:
        run, probe = getattr(system, product), x if product == "filter" else u
        run(probe)
        meter.reset()
        made[f"kept, {product}"] = (meter.now() - before) / 1e6
        run(probe)
        made[f"peak, {product}"] = (meter.peak() - before) / 1e6
    return made


def _networks(small: bool) -> dict[str, Network]:
    return dict(list(SMALL.items())[:1]) if small else EVERY_WAY


def run(device: torch.device, quick: bool = False, words: str = "") -> list[dict]:
    """A row per network, number of probes and way: MB kept and MB at the peak of one product. More
    probes than one by the paper's ways and the tape, where that is quick.
    """
    rows = []
    for name, network in chosen(_networks(quick), words).items():
        print(f"benchmarks: memory of {name}", file=sys.stderr)
        model = network.build()
        cases = [(1, way) for way in WAYS if way not in LEFT_OUT and applies(way, model)]
        more = [] if name in SLOW else [(8, way) for way in PAPER]
        for probes, way in cases + more:
            try:
                found = in_a_fresh_process(measure, name, way, str(device), quick, probes)
            except (ModuleNotFoundError, MemoryError) as error:
                print(f"benchmarks: {name} by {way}: {error}", file=sys.stderr)
                continue
            columns = ("kept, filter", "peak, filter", "kept, transpose", "peak, transpose")
            values = {f"{c} MB": found.get(c, float("nan")) for c in columns}
            rows.append({"network": name, "probes": probes, "way": way, **values})
    return rows
