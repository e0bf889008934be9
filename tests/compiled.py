"""Object files and libraries of C++ sources, compiled once and kept in the user's cache.

A file's name tells what it was made from: the compiler and its flags, the source, and the headers
that this source includes. So a change of one header compiles anew only what includes it, and the
same sources in another folder find the same files.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple


def compiler() -> list[str]:
    return os.environ.get("CXX", "g++").split()


def cache(name: str) -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "linscope_cuda" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Unit(NamedTuple):
    """A source with its flags; headers are looked for in the folders `own`, which are ours."""

    source: Path
    flags: Sequence[str]
    own: Sequence[Path] = ()

    def command(self) -> list[str]:
        return [*compiler(), *self.flags, *(f"-I{folder}" for folder in self.own)]

    def read(self) -> list[Path]:
        """The source and what it includes of our own, not the compiler's or a library's headers."""
        rule = _said([*self.command(), "-MM", str(self.source)])
        return [Path(name) for name in rule.partition(":")[2].replace("\\\n", " ").split()]

    def digest(self) -> str:
        made_from = hashlib.sha256("\0".join([_version(), *self.flags]).encode())
        for file in self.read():
            made_from.update(
                file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest()
            )
        return made_from.hexdigest()[:24]


def library(folder: Path, name: str, units: Sequence[Unit], link: Sequence[str]) -> Path:
    """The shared library of these sources; RuntimeError with what a compiler says against them."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda unit: _object(folder, unit), units))
    made_from = "\0".join([*link, *(file.name for file in objects)])
    target = folder / f"{name}-{hashlib.sha256(made_from.encode()).hexdigest()[:24]}.so"
    if not _there(target):
        _run([*compiler(), "-shared", *map(str, objects), *link], target)
        _forget_old(folder, name)
    return target


def _object(folder: Path, unit: Unit) -> Path:
    target = folder / f"{unit.source.stem}-{unit.digest()}.o"
    if not _there(target):
        _run([*unit.command(), "-c", str(unit.source)], target)
    return target


def _there(target: Path) -> bool:
    """Whether a file is in the cache; it then counts as new."""
    try:
        os.utime(target)
    except FileNotFoundError:
        return False
    return True


def _version() -> str:
    return _said([*compiler(), "--version"])


def _run(command: list[str], target: Path) -> None:
    # Under another name first: a process that is stopped leaves nothing that looks finished.
    partial = target.with_suffix(f".{os.getpid()}")
    _said([*command, "-o", str(partial)])
    partial.replace(target)


def _said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def _forget_old(folder: Path, name: str, keep: int = 4) -> None:
    """Of earlier versions of this library, and of all object files, only the newest stay."""
    for pattern, count in ((f"{name}-*.so", keep), ("*.o", 32 * keep)):
        files = sorted(folder.glob(pattern), key=lambda f: f.stat().st_mtime)
        for file in files[:-count]:
            file.unlink(missing_ok=True)
