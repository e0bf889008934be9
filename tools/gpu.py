"""Everything that wants a GPU, in one command, within 25 minutes and without network.

    python tools/gpu.py                    all steps, in order
    python tools/gpu.py build test         some of them

Builds the kernels for this GPU beside their source, runs the self-test and every test marked cuda,
lets compute-sanitizer watch every operator, and measures. Results go to benchmarks/results under
the device's name, and into docs/benchmarks.md; each step's output to the folder --out. A step that
fails or takes too long does not keep the others from running; the exit code says that one did.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
PYTHON = sys.executable
SANITIZERS = ("memcheck", "racecheck", "synccheck")


def steps(results: Path) -> dict[str, tuple[list[str], int]]:
    """Each step's command, and its limit in seconds."""
    benchmarks = [PYTHON, "-m", "benchmarks"]
    device = ["--device", "cuda", "--json"]
    watched = {
        tool: (
            [
                *("compute-sanitizer", "--tool", tool, "--error-exitcode", "1"),
                *(PYTHON, "tools/every_launch.py"),
            ],
            60,
        )
        for tool in SANITIZERS
    }
    tests = [PYTHON, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", "tests"]
    return {
        "build": ([PYTHON, "setup.py", "build_ext", "--inplace"], 300),
        "selftest": ([PYTHON, "-m", "linscope_cuda", "selftest", "--device", "cuda"], 60),
        "test": (tests, 300),
        **watched,
        "calls": ([*benchmarks, "calls", *device, f"{results}-calls.json"], 120),
        "ways": ([*benchmarks, "ways", *device, f"{results}-ways.json"], 240),
        "kernels": ([*benchmarks, "kernels", *device, f"{results}-kernels.json"], 240),
        "page": ([PYTHON, "-m", "benchmarks.page"], 60),
    }


def run(name: str, command: list[str], limit: int, out: Path) -> bool:
    """Whether a step went well; its output is a file of its own."""
    if shutil.which(command[0]) is None:
        print(f"{name:10} {command[0]} is not on PATH")
        return False
    environment = os.environ | {
        "LINSCOPE_CUDA": "1",
        "PYTHONPATH": _path(),
        "PYTHONUNBUFFERED": "1",
    }
    began = time.perf_counter()
    with open(out / f"{name}.log", "w") as log:
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, timeout=limit
            ).returncode
        except subprocess.TimeoutExpired:
            done = f"stopped after {limit} s"
    said = (out / f"{name}.log").read_text().strip().splitlines()
    verdict = "ok" if done == 0 else f"failed ({done})"
    seconds = time.perf_counter() - began
    print(f"{name:10} {verdict}, {seconds:.0f} s: {said[-1][:100] if said else ''}", flush=True)
    return done == 0


def _path() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("steps", nargs="*", help="default: all")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="default: %(default)s")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu: torch finds no CUDA device here", file=sys.stderr)
        return 2
    device = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")
    known = steps(ROOT / "benchmarks" / "results" / device)
    unknown = [name for name in arguments.steps if name not in known]
    if unknown:
        print(f"gpu: no step {unknown[0]!r}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    chosen = arguments.steps or list(known)
    went = [run(name, *known[name], arguments.out) for name in known if name in chosen]
    return 0 if all(went) else 1


if __name__ == "__main__":
    sys.exit(main())
