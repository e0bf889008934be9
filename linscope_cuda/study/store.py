"""The store of a sweep: arrays on disk (zarr) that are filled block by block.

A block is one chunk of every array. zarr writes a chunk aside and renames it, so that it is whole
or not there, and a block is done when all of its chunks are there.
"""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..files import scratch

if TYPE_CHECKING:
    import zarr

_FORMAT = "linscope_cuda sweep 1"


class StoreError(ValueError):
    """A path that cannot be the store of this sweep; the message says why, in one sentence."""


class Array(NamedTuple):
    """An array to be made; a chunk is `block` of its first extent and all of the others."""

    shape: tuple[int, ...]
    dtype: str
    block: int


def make(path: Path, facts: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """A store of nan: of several processes one makes it, and nobody sees half of it.

    make(Path("rows.zarr"), {"kind": "rows"}, {"energy": Array((48,), "float64", 7)})
    """
    zarr = needed_zarr()
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch(path.parent) as folder:
        aside = folder / path.name
        group = zarr.create_group(aside, attributes={"format": _FORMAT, **facts})
        for name, (shape, dtype, block) in arrays.items():
            group.create_array(
                name,
                shape=shape,
                dtype=dtype,
                chunks=(block, *shape[1:]),
                fill_value=float("nan"),
            )
        try:
            os.rename(aside, path)
        except OSError:
            if not (path / "zarr.json").exists():  # else another process was faster
                raise


class Store:
    """What is at `path`: `facts` of the sweep and its `arrays`; StoreError if that is no store.

    Store(Path("rows.zarr")).facts["kind"]
    """

    def __init__(self, path: Path) -> None:
        zarr = needed_zarr()
        try:
            # zarr itself would make a folder of a path where there is nothing.
            group = zarr.open_group(path, mode="r+") if (path / "zarr.json").is_file() else None
        except (ValueError, KeyError):
            group = None
        self.facts: dict[str, Any] = dict(group.attrs) if group else {}
        if group is None or self.facts.get("format") != _FORMAT:
            raise StoreError(f"{str(path)!r} is no store of a sweep")
        # A chunk of zeros is written like any other: that it is there says that its block is done.
        self.arrays: dict[str, zarr.Array] = {
            name: array.with_config({"write_empty_chunks": True}) for name, array in group.arrays()
        }

    def has(self, b: int) -> bool:
        """Whether a block is done."""
        return all(_chunk(array, b).exists() for array in self.arrays.values())

    def write(self, b: int, content: Mapping[str, np.ndarray]) -> None:
        """A block, array by array; what a call has written before it was killed stays as it is."""
        for name, values in content.items():
            array = self.arrays[name]
            if not _chunk(array, b).exists():
                start = b * array.chunks[0]
                array[start : start + len(values)] = values

    def tidy(self, blocks: Container[int]) -> None:
        """Removes what a killed call was in the middle of writing of these blocks."""
        for array in self.arrays.values():
            for left in (_root(array) / "c").rglob("*.partial"):
                if int(left.relative_to(_root(array) / "c").parts[0].split(".")[0]) in blocks:
                    left.unlink(missing_ok=True)


def _chunk(array: zarr.Array, b: int) -> Path:
    """The file of a block."""
    key = array.metadata.encode_chunk_key((b, *[0] * (array.ndim - 1)))
    return _root(array) / key


def _root(array: zarr.Array) -> Path:
    return Path(array.store.root) / array.path  # type: ignore[attr-defined]


def needed_zarr() -> Any:
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "sweeps want zarr: pip install 'linscope_cuda[sweep]'", name="zarr"
        ) from error
    return zarr
