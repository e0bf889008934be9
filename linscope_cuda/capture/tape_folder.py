"""The decisions of one record in files of a folder, mapped into memory from there.

A folder serves any number of records, of any processes: each has file names of its own. The first
of its files is locked as long as its tape is there, and a lock ends with its process, however that
ends. A record begins by removing the files of those that nobody uses any more. Numbers never depend
on that: files that were mapped stay readable when they lose their names.
"""

from __future__ import annotations

import os
import re
import secrets
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and what a killed process left stays
    fcntl = None

_FIRST = re.compile(r"([0-9a-f]{32})-00000\.safetensors")


class Folder:
    """Where one record keeps its decisions.

    >>> run.keep = Folder("tapes").keep
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        _clear(self.path)
        self.name = secrets.token_hex(16)
        self.written = 0

    def keep(self, number: int, decision: Mapping[str, Any]) -> dict[str, Any]:
        """The decision with its tensors in a file, mapped from there; OSError if the file does not
        hold what was written.
        """
        tensors = {k: v.cpu().contiguous() for k, v in decision.items() if isinstance(v, Tensor)}
        if not tensors:
            return dict(decision)
        path = self.path / f"{self.name}-{self.written:05}.safetensors"
        part = path.with_suffix(".part")
        with open(part, "xb") as file:
            if self.written == 0:
                self._own(file.fileno())
            file.write(save(tensors))
        os.rename(part, path)
        self.written += 1
        with safe_open(path, framework="pt") as mapped:
            kept = {name: mapped.get_tensor(name) for name in tensors}
        if not all(torch.equal(_bytes(kept[name]), _bytes(t)) for name, t in tensors.items()):
            raise OSError(f"{path} was changed by another program while it was written")
        return {**decision, **kept}

    def _own(self, file: int) -> None:
        """Locks the first file before it gets its name, for as long as this object lives."""
        if (lock := _locked(os.dup(file))) is not None:
            weakref.finalize(self, os.close, lock)


def _locked(file: int) -> int | None:
    """The file, locked until it is closed; None, and closed, if another has it, or none can."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
    except OSError:  # locked, or on a file system without locks
        pass
    os.close(file)
    return None


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.flatten().view(torch.uint8)


def _clear(folder: Path) -> None:
    """Removes the files of records whose tape, or whose process, has ended."""
    for first in folder.iterdir():
        if not (name := _FIRST.fullmatch(first.name)):
            continue
        try:
            lock = _locked(os.open(first, os.O_RDWR))
        except OSError:  # gone meanwhile, or somebody else's
            continue
        if lock is not None:
            # The first last: while it is there, the others can be found.
            for path in sorted(folder.glob(f"{name[1]}-*"), reverse=True):
                path.unlink(missing_ok=True)
            os.close(lock)
