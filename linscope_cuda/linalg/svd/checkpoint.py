"""A state on disk: one safetensors file that says what it belongs to, whole or not at all.

Tensors stand beside two texts in the header: `facts`, which must be those of the call that goes on
from it, and a digest of all the rest. Nothing in the file is executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from ...files import digest, read_tensors, write_tensors

_FORMAT = "linscope_cuda svd checkpoint 2"


def save(
    path: Path, facts: Mapping[str, Any], numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Writes the file beside `path` and renames it: a kill leaves the old file or the new one, and
    so does a full disk, which raises OSError.

    save(Path("state"), {"k": 8}, {"iteration": 3}, {"V": torch.eye(3)})
    """
    texts = {"facts": json.dumps(facts), "numbers": json.dumps(numbers)}
    header = {"format": _FORMAT, **texts, "sha256": _digest(texts, tensors)}
    write_tensors(path, tensors, header, _part(path))


def load(path: Path, facts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """numbers and tensors of a file whose facts are these; ValueError says what is not.

    numbers, tensors = load(Path("state"), {"k": 8})
    """
    try:
        header, tensors = read_tensors(path)
    except SafetensorError as error:
        raise ValueError(f"checkpoint {str(path)!r} is damaged or none: {error}") from error
    if header.get("format") != _FORMAT:
        raise ValueError(f"checkpoint {str(path)!r} wants a file of svd's, was given another")
    texts = {name: header.get(name, "") for name in ("facts", "numbers")}
    if _digest(texts, tensors) != header.get("sha256"):
        raise ValueError(f"checkpoint {str(path)!r} is damaged: its digest differs")
    theirs = json.loads(texts["facts"])
    for name, ours in json.loads(json.dumps(facts)).items():
        if theirs.get(name) != ours:
            raise ValueError(
                f"checkpoint {str(path)!r} is of another call: "
                f"its {name} is {theirs.get(name)}, {ours} is wanted"
            )
    return json.loads(texts["numbers"]), tensors


def require_writable(path: Path) -> None:
    """ValueError if no file can be written beside `path`; leaves nothing behind.

    require_writable(Path("state"))
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(f"{str(path)!r} is a folder")
        _part(path).touch()
        _part(path).unlink()
    except OSError as error:
        raise ValueError(f"checkpoint wants a file that can be written: {error}") from error


def _part(path: Path) -> Path:
    """One name for all processes: what a killed one left is written over by the next."""
    return path.with_name(path.name + ".part")


def _digest(texts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    return digest(json.dumps([_FORMAT, *sorted(texts.items())]), tensors)
