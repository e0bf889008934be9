"""Files that are whole or not there, and files of tensors with a digest of what they hold."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
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
