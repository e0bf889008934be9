"""Compiles the emulator on demand, into the user's cache."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"

_COMMON = ["-std=c++20", "-fPIC", "-g1", "-Wall", "-Wno-unknown-pragmas", "-fvisibility=hidden"]
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
    "fast": Build(["-O2"], ["-O1"], []),
    "portable": Build(["-O2", "-DEMULATOR_PORTABLE"], ["-O1"], []),
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


def _compiler() -> list[str]:
    return os.environ.get("CXX", "g++").split()


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
    if shutil.which(_compiler()[0]) is None:
        return f"the CUDA emulator needs a C++ compiler, {_compiler()[0]} was not found"
    version = subprocess.run([*_compiler(), "-dM", "-E", "-"], input="", capture_output=True)
    if b"__clang__" in version.stdout or b"__GNUC__" not in version.stdout:
        return "the CUDA emulator needs g++ (CXX names another compiler)"
    if cuda_include() is None:
        return "the CUDA emulator needs NVIDIA's headers (a toolkit's include folder)"
    return None


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "linscope_cuda" / "emulator"


def _include_flags() -> list[str]:
    include = cuda_include()
    system = [f"-isystem{include}", f"-isystem{include}/cccl"]
    return [f"-I{CSRC}", f"-I{HERE}", *system]


def _compile(source: Path, flags: list[str], headers: bytes) -> Path:
    """An object file, from the cache if neither its source nor any header has changed."""
    command = [*_compiler(), *_COMMON, *_include_flags(), *flags]
    digest = hashlib.sha256(headers)
    digest.update("\0".join(command).encode() + source.read_bytes())
    target = _cache() / f"{source.stem}-{digest.hexdigest()[:24]}.o"
    if not target.exists():
        _run([*command, "-c", str(source)], target)
    return target


def _run(command: list[str], target: Path) -> None:
    # Under another name first: a process that is stopped leaves nothing that looks finished.
    partial = target.with_suffix(f".{os.getpid()}")
    done = subprocess.run([*command, "-o", str(partial)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    partial.replace(target)


def _headers() -> bytes:
    version = subprocess.run([*_compiler(), "--version"], capture_output=True).stdout
    files = sorted([*CSRC.glob("*.h"), *CSRC.glob("*.cuh"), *HERE.rglob("*.h")])
    files += sorted(HERE.rglob("*.cuh"))
    return hashlib.sha256(version + b"".join(f.read_bytes() for f in files)).digest()


@functools.cache
def library(name: str) -> Path:
    """The emulator's shared library of one of BUILDS."""
    build = BUILDS[name]
    headers = _headers()
    _cache().mkdir(parents=True, exist_ok=True)
    kernels = sorted(HERE.glob("kernels/*.cpp"))
    runtime = [HERE / f"{source}.cpp" for source in [*build.sources, "library"]]
    sources = [*kernels, *runtime]
    flags = [build.kernels] * len(kernels) + [build.runtime] * len(runtime)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(_compile, sources, flags, [headers] * len(sources)))
    digest = hashlib.sha256("\0".join([*build.link, *map(str, objects)]).encode()).hexdigest()
    target = _cache() / f"{name}-{digest[:24]}.so"
    if not target.exists():
        _run([*_compiler(), "-shared", *build.link, *map(str, objects)], target)
        _forget_old(name)
    return target


def _forget_old(name: str, keep: int = 4) -> None:
    """Of earlier versions of this library, and of all object files, only the newest stay."""
    for pattern, count in ((f"{name}-*.so", keep), ("*.o", 32 * keep)):
        files = sorted(_cache().glob(pattern), key=lambda f: f.stat().st_mtime)
        for file in files[:-count]:
            file.unlink(missing_ok=True)
