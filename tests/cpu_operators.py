"""csrc's CPU part as a library of its own: with AddressSanitizer and UndefinedBehaviorSanitizer, in
processes that any access outside of memory ends, or quickly compiled without them.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import compiled
from compiled import Unit

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"

_FLAGS = ["-std=c++20", "-O1", "-g1", "-fPIC", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
_FACTS = ['-DLINSCOPE_TORCH_VERSION="test"']
_SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-sanitize=vptr"]


def _runtime(name: str) -> str:
    found = subprocess.run(
        [*compiled.compiler(), f"-print-file-name={name}"], capture_output=True, text=True
    )
    return found.stdout.strip()


def missing() -> str | None:
    """What keeps the operators from being compiled with sanitizers here, None if nothing does."""
    command = compiled.compiler()[0]
    if shutil.which(command) is None:
        return f"operators with sanitizers need a C++ compiler, {command} was not found"
    if not Path(_runtime("libasan.so")).is_absolute():
        return "operators with sanitizers need g++ and its libasan.so"
    return None


def library(csrc: Path = CSRC, sanitized: bool = False) -> Path:
    """The Python module `_cpu`, whose import registers the operators."""
    from torch.utils import cpp_extension

    includes = [*cpp_extension.include_paths(), sysconfig.get_paths()["include"]]
    extra = [*_SANITIZE, "-fno-omit-frame-pointer"] if sanitized else []
    flags = [*_FLAGS, *_FACTS, *extra, *(f"-isystem{place}" for place in includes)]
    sources = [*sorted(csrc.glob("*_cpu.cpp")), csrc / "cpu.cpp"]
    units = [Unit(source, flags) for source in sources]
    link = [*(_SANITIZE if sanitized else []), *(f"-L{p}" for p in cpp_extension.library_paths())]
    link += ["-lc10", "-ltorch", "-ltorch_cpu"]
    name = "sanitized" if sanitized else "plain"
    return compiled.library(compiled.cache("cpu"), name, units, link)


def load(path: str) -> None:
    """That library as the package's own, before the package is imported."""
    import torch  # noqa: F401 (whose libraries it is linked to)

    spec = importlib.util.spec_from_file_location("linscope_cuda._cpu", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["linscope_cuda._cpu"] = module


def python(*arguments: str, sanitized: bool = False) -> subprocess.CompletedProcess:
    """A process with this package: code, or a file and its arguments."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, *(["-c"] if len(arguments) == 1 else []), *arguments]
    own = {**os.environ, "PYTHONPATH": path}
    if sanitized:
        # libstdc++ too: AddressSanitizer looks for its exceptions when it starts.
        own["LD_PRELOAD"] = f"{_runtime('libasan.so')} {_runtime('libstdc++.so')}"
        own["ASAN_OPTIONS"] = "detect_leaks=0:allocator_may_return_null=1:"
        own["ASAN_OPTIONS"] += "max_allocation_size_mb=1024"
        own["UBSAN_OPTIONS"] = "print_stacktrace=1"
        own["OMP_NUM_THREADS"] = "2"
    return subprocess.run(command, env=own, capture_output=True, text=True)


def with_sanitizers(code: str) -> subprocess.CompletedProcess:
    """Code that finds the operators with sanitizers in torch.ops.linscope."""
    start = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    start += f"import cpu_operators; cpu_operators.load({str(library(sanitized=True))!r})\n"
    return python(start + "import linscope_cuda\n" + code, sanitized=True)
