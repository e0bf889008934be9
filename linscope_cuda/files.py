"""Files that are whole or not there, and files of tensors with a digest of what they hold."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor


@contextmanager
def aside(path: str | os.PathLike, part: Path | None = None) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place at the end; after an error, what was
    there is still there. Without `part` the path is one of this process alone.

    with aside("page.html") as part:
        part.write_text("<html>")
    """
    path = Path(path)
    part = part or path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def scratch(place: Path) -> Iterator[Path]:
    """A folder in the folder `place`, for what is made first and renamed when it is whole, which
    wants one file system; at the end it is gone with all that is left in it. OSError where it
    cannot be made.

    with scratch(Path("out")) as folder:
        os.replace(made(folder), "out/whole")
    """
    with tempfile.TemporaryDirectory(
        prefix=".linscope-", dir=place, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def write_tensors(
    path: str | os.PathLike,
    tensors: Mapping[str, Tensor],
    header: Mapping[str, str],
    part: Path | None = None,
) -> None:
    """One safetensors file, whole on disk before it is in place; `part` as in `aside`. OSError
    where it cannot be.

    write_tensors("one.tape", {"x0": torch.zeros(3)}, {"format": "1"})
    """
    content = save({name: plain(t) for name, t in tensors.items()}, dict(header))
    with aside(path, part) as written, open(written, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_tensors(path: str | os.PathLike) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and tensors of a safetensors file; SafetensorError for another one. Nothing of it is
    executed.

    header, tensors = read_tensors("one.tape")
    """
    with safe_open(path, framework="pt") as file:
        # Copies: the file may be written over while they are used.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return file.metadata() or {}, tensors


def write_document(
    path: str | os.PathLike, kind: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """One file of tensors with a header of JSON's types, and a digest of both. FileNotFoundError
    where the folder is missing.

    write_document("one.tape", "tape", {"format": 1}, {"x0": torch.zeros(3)})
    """
    if not (folder := Path(path).parent).is_dir():
        raise FileNotFoundError(f"there is no folder {folder} to save a {kind} in")
    said = {**header, "digest": digest(json.dumps(header, sort_keys=True), tensors)}
    write_tensors(path, tensors, {_key(kind): json.dumps(said)})


def read_document(
    path: str | os.PathLike, kind: str, version: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `write_document` wrote. FileNotFoundError without such a file; ValueError for a damaged
    one, for another kind, and where the header's "format" is not `version`.

    header, tensors = read_document("one.tape", "tape", 1)
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no {kind} at {path}")
    try:
        texts, tensors = read_tensors(path)
        header = json.loads(texts.get(_key(kind), "null"))
        said = header.pop("digest", None) if isinstance(header, dict) else None
        own = digest(json.dumps(header, sort_keys=True), tensors)
    except (SafetensorError, ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path} is damaged or no {kind}: {first_line(error)}") from error
    if not isinstance(header, dict) or header.get("format") != version:
        raise ValueError(f"{path} is no {kind} of this version of linscope_cuda")
    if said != own:
        raise ValueError(f"{path} was altered: its contents do not match its digest")
    return header, tensors


def _key(kind: str) -> str:
    return f"linscope_cuda.{kind}"


def fields(what: str, given: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    """A part of a header that has these keys, with values of these kinds; ValueError for another.

    fields("policy", {"default": "paper"}, {"default": str})
    """
    of_kind(what, given, dict)
    if given.keys() != kinds.keys():
        raise ValueError(f"{what} wants {', '.join(kinds)}, has {', '.join(given)!r:.80}")
    return {key: of_kind(f"the {key} of {what}", given[key], kind) for key, kind in kinds.items()}


def of_kind(what: str, given: Any, kind: type) -> Any:
    """A value that is of a kind; ValueError for another.

    of_kind("the label", "relu", str)
    """
    if not isinstance(given, kind):
        raise ValueError(f"{what} must be a {kind.__name__}, was given {given!r:.60}")
    return given


def first_line(error: Exception) -> str:
    """What an error says, in one line.

    first_line(ValueError("no"))
    """
    return str(error).partition("\n")[0]


def digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a text and of tensors, with their names, shapes and dtypes.

    digest("format 1", {"x0": torch.zeros(3)})
    """
    total = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        total.update(plain(tensor).flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def plain(tensor: Tensor) -> Tensor:
    """A tensor's numbers alone: without gradients, on the CPU, without gaps."""
    return tensor.detach().cpu().contiguous()
