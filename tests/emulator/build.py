"""Compiles the emulator on demand, into the user's cache."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import compiled
from compiled import Unit

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"

_COMMON = ["-std=c++20", "-fPIC", "-g1", "-Wall", "-Wno-unknown-pragmas", "-fvisibility=hidden"]
_ALIGNED = ["-fsanitize=alignment", "-fno-sanitize-recover=all"]
_SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
_TRACE = ["-DEMULATOR_TRACE"]
_RUNTIME = ["fiber", "faults", "device_memory", "shared_memory", "schedule", "stacks", "machine"]
_TRACING = ["happens_before", "traffic", "trace", "hooks"]


class Build(NamedTuple):
    """Flags of the emulator's own files, of the kernels, and of the link."""

    runtime: list[str]
    kernels: list[str]
    link: list[str]
    sources: list[str] = _RUNTIME


BUILDS = {
    "fast": Build(["-O2"], ["-O1", *_ALIGNED], _ALIGNED),
    "portable": Build(["-O2", "-DEMULATOR_PORTABLE"], ["-O1", *_ALIGNED], _ALIGNED),
    "asan": Build(["-O1", *_SANITIZE], ["-O1", *_SANITIZE], _SANITIZE),
    # At plain -O1 g++ splits loads of 16 bytes into their parts, and counts would lie. The link
    # leaves ThreadSanitizer's library out: hooks.cpp stands in its place.
    "trace": Build(
        ["-O2", *_TRACE],
        [*_TRACE, "-O1", "-fsanitize=thread"]
        + ["-fno-tree-sra", "-fno-ipa-sra", "-fno-thread-jumps"],
        [],
        _RUNTIME + _TRACING,
    ),
}


def _toolkit_include() -> Path | None:
    """nvcc itself knows where it is installed; the one on PATH may be a wrapper script."""
    nvcc = shutil.which("nvcc", path=os.path.join(os.environ.get("CUDA_HOME", ""), "bin"))
    nvcc = nvcc or shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        return None
    plan = subprocess.run([nvcc, "--dryrun", "x.cu"], capture_output=True, text=True).stderr
    top = re.search(r"^#\$ TOP=(.*)$", plan, re.MULTILINE)
    return Path(top.group(1).strip()).resolve() / "include" if top else None


def _wheel_includes() -> list[Path]:
    spec = importlib.util.find_spec("nvidia")
    places = spec.submodule_search_locations if spec else None
    return sorted(p for place in places or [] for p in Path(place).glob("*/include"))


@functools.cache
def cuda_include() -> Path | None:
    """The folder of NVIDIA's headers (cuda_fp16.h and what it includes): the toolkit's, or that of
    the wheels nvidia-cuda-runtime, nvidia-cuda-crt and nvidia-cuda-cccl.
    """
    needed = ("cuda_fp16.h", "cuda_bf16.h", "crt/host_defines.h")
    for place in [_toolkit_include(), *_wheel_includes()]:
        if place is None or not all((place / name).exists() for name in needed):
            continue
        if (place / "nv/target").exists() or (place / "cccl/nv/target").exists():
            return place
    return None


def missing() -> str | None:
    """What keeps the emulator from being built here, None if nothing does."""
    if shutil.which(compiled.compiler()[0]) is None:
        return f"the CUDA emulator needs a C++ compiler, {compiled.compiler()[0]} was not found"
    version = subprocess.run(
        [*compiled.compiler(), "-dM", "-E", "-"], input="", capture_output=True
    )
    if b"__clang__" in version.stdout or b"__GNUC__" not in version.stdout:
        return "the CUDA emulator needs g++ (CXX names another compiler)"
    if cuda_include() is None:
        return "the CUDA emulator needs NVIDIA's headers (a toolkit's include folder)"
    return None


@functools.cache
def library(name: str) -> Path:
    """The emulator's shared library of one of BUILDS."""
    build = BUILDS[name]
    include = cuda_include()
    common = [*_COMMON, f"-isystem{include}", f"-isystem{include}/cccl"]
    kernels = sorted(HERE.glob("kernels/*.cpp"))
    runtime = [HERE / f"{source}.cpp" for source in [*build.sources, "library"]]
    units = [Unit(source, [*common, *build.kernels], (CSRC, HERE)) for source in kernels]
    units += [Unit(source, [*common, *build.runtime], (CSRC, HERE)) for source in runtime]
    return compiled.library(compiled.cache("emulator"), name, units, build.link)
