"""Compiles every CUDA kernel for every architecture, without a GPU, and reads the machine code.

    python tools/machine_code.py           writes docs/machine_code.md
    python tools/machine_code.py --check   leaves it, and wants it to be what would be written

Either exits with 1 and says why if a kernel spills registers, has a stack frame, states no
occupancy in its launch bound or misses it, or, where it is vectorised, moves data in less than 16
bytes. Needs nvcc, c++filt, and nvdisasm (of the toolkit, or pip install nvidia-cuda-nvdisasm).
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
SOURCE = Path(__file__).with_name("every_kernel.cu")
DOCUMENT = ROOT / "docs" / "machine_code.md"

FLAGS = ["-O3", "-std=c++20", "--extended-lambda", "-Wno-deprecated-gpu-targets"]  # setup.py's


class Limits(NamedTuple):
    """What a multiprocessor holds at a time (CUDA C++ Programming Guide, compute capabilities)."""

    threads: int
    blocks: int
    shared: int
    reserved: int = 1024  # shared memory that the system takes of every block
    registers: int = 65536


ARCHITECTURES = {
    75: Limits(1024, 16, 64 * 1024, reserved=0),
    80: Limits(2048, 32, 164 * 1024),
    86: Limits(1536, 16, 100 * 1024),
    89: Limits(1536, 24, 100 * 1024),
    90: Limits(2048, 32, 228 * 1024),
    100: Limits(2048, 32, 228 * 1024),
    120: Limits(1536, 24, 100 * 1024),
}

# Accesses narrower than a pack, in a kernel that moves packs: decisions, and what a plane or a
# channel has one of, at the most of any architecture, as ptxas doubles a path. Data come in
# addition to these only if somebody took them apart.
NARROW = {
    "scope_kernel<Piecewise": (0, 2),
    "scope_kernel<ScopedGate": (0, 0),
    "frozen_kernel<Piecewise": (8, 0),
    "frozen_kernel<FrozenGate": (0, 0),
    "frozen_kernel<Normalization": (28, 0),
    "frozen_kernel<NormGradient": (26, 0),
    "gate_scope_backward_kernel": (0, 0),
    "instance_norm_on_chip_kernel": (3, 4),
    "reduce_kernel<ReduceMoments": (3, 7),
    "reduce_kernel<ReduceGradients": (2, 4),
    "max_pool2d_scope_kernel": (0, 2),
    "max_pool2d_frozen_kernel": (2, 0),
    "max_pool2d_frozen_transpose_kernel": (40, 0),
}
BYTES = {"double": 8, "float": 4, "half": 2, "bfloat16": 2}


class Kernel(NamedTuple):
    """One kernel as compiled for one architecture; loads and stores count instructions by bits."""

    name: str
    architecture: int
    threads: int
    resident: int  # blocks per multiprocessor that its launch bound demands, 0 for none
    registers: int
    shared: int
    stack: int
    spilled: int
    loads: Counter[int]
    stores: Counter[int]

    @property
    def function(self) -> str:
        return self.name.split("<")[0]

    @property
    def pack(self) -> int:
        """Bits of a kernel's packs: as many elements of a type as its name says."""
        for pattern in (
            r"Reduce\w+<(?P<type>\w+), \w+, (?P<count>\d+)>",
            r"Usual<.*>, \w+, (?P<count>\d+), (?P<type>\w+),",
            r"(?P<type>\w+), (?P<count>\d+)>$",
        ):
            if found := re.search(pattern, self.name):
                return 8 * BYTES[found["type"]] * int(found["count"])
        return 0

    @property
    def blocks(self) -> int:
        """Blocks resident at a time. Each of a multiprocessor's four parts has a quarter of the
        registers, and gives them to a warp in units of 256.
        """
        limits = ARCHITECTURES[self.architecture]
        per_warp = -(-self.registers * 32 // 256) * 256
        by_registers = limits.registers // 4 // per_warp * 4 // (self.threads // 32)
        by_shared = limits.shared // max(1, self.shared + limits.reserved)
        return min(limits.blocks, limits.threads // self.threads, by_registers, by_shared)

    @property
    def occupancy(self) -> float:
        return self.blocks * self.threads / ARCHITECTURES[self.architecture].threads

    def faults(self) -> list[str]:
        found = []
        if self.spilled:
            found.append(f"spills {self.spilled} bytes of registers")
        if self.stack:
            found.append(f"has a stack frame of {self.stack} bytes")
        if not self.resident:
            found.append("states no resident blocks in its launch bound")
        if self.blocks < self.resident:
            found.append(f"{self.blocks} of {self.resident} stated blocks fit")
        allowed = next((n for name, n in NARROW.items() if self.name.startswith(name)), (0, 0))
        for verb, widths, narrow in zip(
            ("loads", "stores"), (self.loads, self.stores), allowed, strict=True
        ):
            # A reduction stores parts alone; outputs of contiguous rows share no load.
            other = verb == "stores" if "reduce" in self.name else "transpose" in self.name
            if self.pack and max(widths, default=0) < self.pack and not other:
                found.append(f"{verb} no pack of {self.pack} bits at once")
            less = sum(count for bits, count in widths.items() if bits < self.pack)
            if less > narrow:
                found.append(f"{verb} less than a pack in {less} places, {narrow} are due")
        return [f"sm_{self.architecture} {self.name}: {fault}" for fault in found]


def nvdisasm() -> str | None:
    """Local toolkits may lack it; its wheel keeps it inside site-packages."""
    spec = importlib.util.find_spec("nvidia")
    wheels = [Path(p) for p in (spec.submodule_search_locations or [] if spec else [])]
    inside = sorted(str(p) for wheel in wheels for p in wheel.glob("*/bin/nvdisasm"))
    return shutil.which("nvdisasm") or next(iter(inside), None)


def missing() -> str | None:
    """What keeps the machine code from being read here, None if nothing does."""
    if shutil.which("nvcc") is None:
        return "reading machine code needs nvcc"
    if nvdisasm() is None:
        return "reading machine code needs nvdisasm (pip install nvidia-cuda-nvdisasm)"
    return None if shutil.which("c++filt") else "reading machine code needs c++filt (binutils)"


def _run(command: Iterable[str | Path], text: str | None = None) -> tuple[str, str]:
    done = subprocess.run(list(map(str, command)), input=text, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}{done.stdout}")
    return done.stdout, done.stderr


@functools.cache
def compiler() -> str:
    return re.findall(r"release [\d.]+, V([\d.]+)", _run(["nvcc", "--version"])[0])[0]


def kernels(architecture: int, source: Path = SOURCE, include: Path = CSRC) -> list[Kernel]:
    """The kernels of a source, compiled for an architecture."""
    with tempfile.TemporaryDirectory() as folder:
        cubin, ptx = Path(folder, "k.cubin"), Path(folder, f"{source.stem}.ptx")
        target = [f"-arch=sm_{architecture}", "-cubin", "-Xptxas", "-v", "--keep"]
        command = ["nvcc", *FLAGS, *target, "--keep-dir", folder, f"-I{include}"]
        _, resources = _run([*command, source, "-o", cubin])
        code = _sections(_run([nvdisasm() or "nvdisasm", "-c", cubin])[0])
        bounds = _launch_bounds(ptx.read_text())
    used = _resources(resources)
    names = _run(["c++filt"], "\n".join(used))[0].splitlines()
    return sorted(
        Kernel(_short(name), architecture, *bounds[symbol], *used[symbol], *_accesses(code[symbol]))
        for symbol, name in zip(used, names, strict=True)
    )


def _short(name: str) -> str:
    """gate_scope_kernel<SigmoidGate, float, 4> of a whole signature."""
    name = re.sub(r"^void ", "", name.replace("linscope::", "").replace("__nv_", "").strip())
    depth = 0
    for at, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            return name[:at].replace("__half", "half").replace("unsigned char", "uint8")
    return name


def _resources(said: str) -> dict[str, tuple[int, int, int, int]]:
    """Registers, shared memory, stack and spilled bytes of each kernel, as ptxas -v tells them."""
    found = {}
    for symbol, text in re.findall(
        r"Compiling entry function '(\w+)'(.*?)(?=Compiling entry|\Z)", said, re.DOTALL
    ):
        stack, stores, loads = map(
            int,
            re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes", text)[0],
        )
        registers = int(re.findall(r"Used (\d+) registers", text)[0])
        shared = sum(map(int, re.findall(r"(\d+) bytes smem", text)))
        found[symbol] = registers, shared, stack, stores + loads
    return found


def _launch_bounds(ptx: str) -> dict[str, tuple[int, int]]:
    """Threads per block and resident blocks that each kernel states."""
    found = {}
    for symbol, head in re.findall(r"\.entry (\w+)(.*?)^\{", ptx, re.DOTALL | re.MULTILINE):
        threads = re.findall(r"\.maxntid (\d+)", head) or [0]
        resident = re.findall(r"\.minnctapersm (\d+)", head) or [0]
        found[symbol] = int(threads[0]), int(resident[0])
    return found


def _sections(disassembly: str) -> dict[str, str]:
    parts = re.split(r"^\.text\.(\w+):$", disassembly, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _accesses(code: str) -> tuple[Counter[int], Counter[int]]:
    """Loads from and stores to global memory, counted by their width in bits."""
    loads, stores = Counter(), Counter()
    for access, suffixes in re.findall(r"\b(LDG?|STG?)((?:\.\w+)*) ", code):
        widths = re.findall(r"\.[US]?(8|16|64|128|256)\b", suffixes)
        (loads if access[0] == "L" else stores)[max(map(int, widths), default=32)] += 1
    return loads, stores


def uncompiled(found: Iterable[Kernel]) -> list[str]:
    """Kernels of csrc that no launcher of every_kernel.cu makes."""
    text = "".join(file.read_text() for file in sorted(CSRC.glob("*.cuh")))
    written = re.findall(r"__launch_bounds__\([^)]*\)\s+(\w+)\(", text)
    assert text.count("__global__") == len(written), "a kernel has no launch bound"
    return [f"{name}: not in {SOURCE.name}" for name in set(written) - {k.function for k in found}]


def report(found: dict[int, list[Kernel]]) -> str:
    """The page: what is demanded, and a row per kernel with a column per architecture."""
    columns = "".join(f" sm_{a} |" for a in found)
    lines = [
        "# Machine code of the CUDA kernels",
        "",
        f"Written by `python tools/machine_code.py` with nvcc {compiler()}; do not edit.",
        "",
        f"{len(next(iter(found.values())))} kernels for {len(found)} architectures. None spills a "
        "register or has a stack frame; each holds the",
        "occupancy that its launch bound in csrc states; in vectorised kernels data move 128 bits "
        "at a time.",
        "",
        "A cell is registers per thread, and the share of a multiprocessor's threads that can be "
        "resident. `stated`: blocks",
        "of 256 threads that the launch bound demands. `shared`: bytes per block that a kernel "
        "declares; an instance norm",
        "kernel whose last argument is true takes its plane's bytes besides, and then fewer "
        "blocks fit. `widest`: bits of the",
        "widest load and store.",
        "",
        f"| kernel | stated | shared | widest |{columns}",
        "| :-- | --: | --: | --: |" + " --: |" * len(found),
    ]
    for row in zip(*found.values(), strict=True):
        assert len({k.name for k in row}) == 1
        first = row[0]
        widest = {(max(k.loads), max(k.stores)) for k in row}
        cells = [
            f"`{first.name}`",
            first.resident,
            first.shared,
            ", ".join(f"{load} / {store}" for load, store in sorted(widest)),
            *(f"{k.registers} · {k.occupancy:.0%}" for k in row),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def written_by() -> str | None:
    """The compiler that the page kept under docs was made with."""
    text = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    return next(iter(re.findall(r"with nvcc ([\d.]+);", text)), None)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="do not write, compare")
    arguments = parser.parse_args()
    if problem := missing():
        print(f"machine_code: {problem}", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(ARCHITECTURES, pool.map(kernels, ARCHITECTURES), strict=True))
    page = report(found)
    print(page)
    faults = [fault for group in found.values() for kernel in group for fault in kernel.faults()]
    faults += uncompiled(found[75])
    if not arguments.check and not faults:
        DOCUMENT.write_text(page)
    elif arguments.check and written_by() in (None, compiler()) and DOCUMENT.read_text() != page:
        faults.append(f"{DOCUMENT.name} is not what is compiled; run python tools/machine_code.py")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
