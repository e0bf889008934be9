"""A state on disk: one safetensors file that says what it belongs to, whole or not at all.

Tensors stand beside two texts in the header: `facts`, which must be those of the call that goes on
from it, and a digest of all the rest. Nothing in the file is executed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

_FORMAT = "linscope_cuda svd checkpoint 1"


def save(
    path: Path, facts: Mapping[str, Any], numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Writes the file beside `path` and renames it: a kill leaves the old file or the new one, and
    so does a full disk, which raises OSError.

    save(Path("state"), {"k": 8}, {"iteration": 3}, {"V": torch.eye(3)})
    """
    whole = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
    texts = {"facts": json.dumps(facts), "numbers": json.dumps(numbers)}
    header = {"format": _FORMAT, **texts, "sha256": _digest(texts, whole)}
    aside = path.with_name(path.name + ".part")
    try:
        with open(aside, "wb") as file:
            file.write(safetensors.torch.save(whole, header))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def load(path: Path, facts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """numbers and tensors of a file whose facts are these; ValueError says what is not.

    numbers, tensors = load(Path("state"), {"k": 8})
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = file.metadata() or {}
            # Copies: the file may be written anew while they are used.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
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
    aside = path.with_name(path.name + ".part")
    try:
        if path.is_dir():
            raise IsADirectoryError(f"{str(path)!r} is a folder")
        aside.touch()
        aside.unlink()
    except OSError as error:
        raise ValueError(f"checkpoint wants a file that can be written: {error}") from error


def _digest(texts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256(json.dumps([_FORMAT, *sorted(texts.items())]).encode())
    for name, x in sorted(tensors.items()):
        total.update(f"{name} {x.dtype} {tuple(x.shape)};".encode())
        total.update(x.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
