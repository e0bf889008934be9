"""Runs a benchmark and prints its table; `--json` keeps it with the machine and the command."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import torch

import linscope_cuda as ls
from linscope_cuda.study.info import cuda_problem

from . import (
    calls,
    explore,
    fields,
    fits,
    kernels,
    ledger,
    memory,
    peers,
    products,
    scaling,
    storage,
    svd,
    timing,
)
from .networks import NoSuchNetwork
from .tables import aligned

BENCHMARKS = {
    "storage": storage.run,
    "kernels": kernels.run,
    "peers": peers.run,
    "ways": products.ways,
    "dfv": products.dfv,
    "memory": memory.run,
    "fits": fits.run,
    "scaling": scaling.run,
    "ledger": ledger.run,
    "svd": svd.run,
    "fields": fields.run,
    "calls": calls.run,
    "explore": explore.run,
}
BY_NETWORK = ("peers", "ways", "dfv", "memory")
ON_GPU = ("calls",)


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "cuda": cuda,
        "torch": torch.__version__,
        "linscope_cuda": ls.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _unusable(device: str) -> str | None:
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = "unknown"
    if kind not in ("cpu", "cuda"):
        return f"there is no device {device!r}; cpu, cuda or cuda:1 are such"
    problem = cuda_problem(device) if kind == "cuda" else None
    return f"{device} cannot be used: {problem}" if problem else None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="small sizes: does everything run?")
    parser.add_argument(
        "--network", metavar="WORDS", default="", help=f"only those, for {', '.join(BY_NETWORK)}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the tables there")
    arguments = parser.parse_args()
    unknown = [n for n in arguments.name if n not in BENCHMARKS]
    if unknown:
        print(
            f"benchmarks: no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}",
            file=sys.stderr,
        )
        return 2
    cuda = arguments.device.startswith("cuda")
    names = arguments.name or [n for n in BENCHMARKS if cuda or n not in ON_GPU]
    others = [n for n in names if n not in BY_NETWORK]
    if arguments.network and others:
        print(
            f"benchmarks: --network is for {', '.join(BY_NETWORK)}, not for {others[0]}",
            file=sys.stderr,
        )
        return 2
    gpus = [n for n in names if n in ON_GPU]
    if gpus and not cuda:
        print(f"benchmarks: {gpus[0]} measures a GPU: --device cuda", file=sys.stderr)
        return 2
    if problem := _unusable(arguments.device):
        print(f"benchmarks: {problem}", file=sys.stderr)
        return 2
    if cuda:
        # What is waited for is the device that is named.
        torch.cuda.set_device(torch.device(arguments.device).index or 0)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, int] = {}
    results: dict[str, object] = {
        "machine": machine(),
        "command": sys.argv[1:],
        "seconds": seconds,
    }
    for name in names:
        start = time.perf_counter()
        only = [arguments.network] if arguments.network else []
        try:
            rows = BENCHMARKS[name](torch.device(arguments.device), arguments.quick, *only)
        except NoSuchNetwork as error:
            print(f"benchmarks: {name}: {error}", file=sys.stderr)
            return 2
        seconds[name], results[name] = round(time.perf_counter() - start), rows
        timing.give_back()
        print(f"\n{name}, {seconds[name]} s\n{aligned(rows)}", flush=True)
        if arguments.json:  # after each, so that an interrupt loses one
            partial = arguments.json.with_name(arguments.json.name + ".part")
            partial.write_text(json.dumps(results, indent=1))
            os.replace(partial, arguments.json)
    return 0


if __name__ == "__main__":
    timing.keep_memory()
    sys.exit(main())
