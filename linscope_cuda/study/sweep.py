"""Sweeps: all rows or all columns of F, streamed to a chunked store on disk (zarr).

The pixels of a sweep are cut into blocks. A kill at any moment leaves whole chunks of them in the
store, and the next call makes those that are missing and no others. Ranks share nothing but the
store, so that any of them may die and come back.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..display import Drawn
from ..linalg.operator import MatrixFreeOperator
from ..linalg.probes import gaussian
from ..progress import bar
from .fields import checked_reach, distances, reach, require_pictures
from .store import Array, Store, StoreError, make

if TYPE_CHECKING:
    import zarr

KINDS = {"rows": "receptive", "columns": "projective"}


_CHUNK = 2**24  # bytes of values in a block
_BATCH = 2**26  # bytes of energies at a time
_SUMMARY_BLOCK = 64  # pixels in a block without values: what a kill may cost
_ANSWERS = 4
_TIMED = 4  # pixels whose time tells that of all


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Drawn):
    """What is in a store, maybe unfinished: maps over the I x J probed pixels, nan where not done.

    `rows` (I) and `columns` (J) are the probed pixels' places in the output for the kind "rows", in
    the input for "columns". `energy`, `radius` and `away` (I, J), float64: as in `Field`, with the
    energy summed over all channels. `origin` (H, W), in the other space: where the energy away from
    the diagonal lies, summed over all pixels done. `values` (I * J, P, C, H, W) is a zarr array of
    the rows or columns themselves, one for each of the pixel's P channels, or None.

    >>> found = ls.sweep(op, "summary.zarr", "columns", values=False, stride=4)
    >>> found.energy.shape, found.radius.nanmean(), found.complete
    """

    path: Path
    kind: str
    rows: list[int]
    columns: list[int]
    share: float
    within: float
    energy: Tensor
    radius: Tensor
    away: Tensor
    origin: Tensor
    values: zarr.Array | None
    done: int  # blocks
    blocks: int

    @property
    def complete(self) -> bool:
        """Whether every block is done."""
        return self.done == self.blocks

    @property
    def mass_away(self) -> float:
        """The share of all the energy swept that is away from the diagonal; nan without any."""
        energy = self.energy.nan_to_num()
        total = energy.sum()
        return ((energy * self.away.nan_to_num()).sum() / total).item()

    def __str__(self) -> str:
        many = f"{len(self.rows)} x {len(self.columns)}"
        radius = self.radius[~self.radius.isnan()]
        middle = radius.median().item() if len(radius) else math.nan
        done = "" if self.complete else f", {self.done} of {self.blocks} blocks done"
        return (
            f"{self.kind} of F of {many} pixels in {self.path}{done}\n"
            f"median radius of {self.share:.0%} of the energy: {middle:.4g} pixels of the input\n"
            f"further than {self.within:g} pixels: {100 * self.mass_away:.3g} % of all the energy"
        )


@torch.no_grad()
def sweep(
    op: MatrixFreeOperator,
    path: str | os.PathLike[str],
    kind: str = "rows",
    *,
    values: bool = True,
    stride: int = 1,
    share: float = 0.9,
    within: float | None = None,
    block: int | None = None,
    part: tuple[int, int] | None = None,
    progress: bool | None = None,
) -> Sweep:
    """All rows of F (of each output pixel, all channels) or all columns, in a zarr store at `path`.

    A call with the same arguments goes on where an earlier one was stopped, also by kill -9. `part`
    (rank, ranks) does its blocks only; None: torch.distributed's, where that is initialised, else
    (0, 1). Any number of ranks may share a store, die and come back.
    `values` False keeps the summary alone, `stride` takes every so many pixels in both directions,
    `share` and `within` are those of `fields`, `block` the pixels in a chunk (None: about 16 MiB).
    At most a block is in memory, beside the operator's own products. float16 and bfloat16 are kept
    as float32.
    A bar shows pixels after two seconds, on a terminal or in a notebook (`progress` True: at once
    and anywhere, False: never).
    ModuleNotFoundError without zarr (the extra "sweep"); ValueError if op makes no picture of a
    picture, for an argument out of range, or a path that holds anything but this very sweep;
    OSError if it cannot be written.

    >>> found = ls.sweep(op, "rows.zarr", "rows")
    >>> found.mass_away, found.radius.mean()
    """
    require_pictures(op)
    if kind not in KINDS:
        raise ValueError(f"sweep wants a kind of {', '.join(KINDS)}, was given {kind!r}")
    if stride < 1 or (block is not None and block < 1):
        raise ValueError(f"sweep wants stride and block >= 1, was given {stride} and {block}")
    share, within = checked_reach(op, share, within)
    rank, ranks = _part(part)
    work = _Work(op, kind, values, stride, share, within, block)
    store = _opened(Path(path), work)
    mine = range(rank, work.blocks, ranks)
    store.tidy(mine)
    pending = [b for b in mine if not store.has(b)]
    what = f"{kind} of F" + (f", rank {rank} of {ranks}" if ranks > 1 else "")
    size = {b: len(work.pixels_of(b)) for b in mine}
    with bar(
        progress,
        total=sum(size.values()),
        initial=sum(size.values()) - sum(size[b] for b in pending),
        desc=what,
        unit=" pixels",
        leave=False,
    ) as shown:
        for b in pending:
            store.write(b, work.do(b))
            shown.update(size[b])
    return open_sweep(path)


@dataclass(frozen=True)
class Forecast:
    """What is left of a sweep: pixels, passes (None where the operator cannot tell), seconds."""

    pixels: int
    passes: float | None
    seconds: float


@torch.no_grad()
def forecast(op: MatrixFreeOperator, kind: str = "rows", *, stride: int = 1) -> Forecast:
    """What all of a sweep takes one process, by the time that a few pixels in the middle take.

    >>> forecast(op, "rows").seconds / 3600
    """
    work = _Work(op, kind, False, stride, 0.9, 1.0, None)
    some = work.pixels[len(work.pixels) // 2 :][:_TIMED]
    places = [(c, i, j) for i, j in some for c in range(work.probed[0])]
    product = op.rows if kind == "rows" else op.columns
    product(places[: work.probed[0]])  # the first time makes more
    start = perf_counter()
    product(places)
    seconds = (perf_counter() - start) / len(some) * len(work.pixels)
    told = getattr(op, "cost", None)
    passes = None
    if told is not None:
        passes = told(**{kind: places}) / len(some) * len(work.pixels)
    return Forecast(len(work.pixels), passes, seconds)


def open_sweep(path: str | os.PathLike[str]) -> Sweep:
    """What is in a store, also while it is being written.

    ModuleNotFoundError without zarr (the extra "sweep"); ValueError for a path without a sweep.

    >>> ls.open_sweep("rows.zarr").complete
    """
    store = Store(Path(path))
    facts, arrays = store.facts, store.arrays
    blocks = arrays["origin"].shape[0]
    done = [b for b in range(blocks) if store.has(b)]
    rows, columns = facts["rows"], facts["columns"]

    def loaded(name: str) -> Tensor:
        return torch.from_numpy(np.asarray(arrays[name][:])).reshape(len(rows), len(columns))

    origin = np.zeros(arrays["origin"].shape[1:])
    for b in done:
        origin += np.asarray(arrays["origin"][b])
    return Sweep(
        path=Path(path),
        kind=facts["kind"],
        rows=rows,
        columns=columns,
        share=facts["share"],
        within=facts["within"],
        energy=loaded("energy"),
        radius=loaded("radius"),
        away=loaded("away"),
        origin=torch.from_numpy(origin),
        values=arrays.get("values"),
        done=len(done),
        blocks=blocks,
    )


class _Work:
    """What a sweep is, and how one of its blocks is made; it knows nothing of the disk."""

    def __init__(
        self,
        op: MatrixFreeOperator,
        kind: str,
        values: bool,
        stride: int,
        share: float,
        within: float,
        block: int | None,
    ) -> None:
        self.op, self.kind, self.share, self.within = op, kind, share, within
        self.keeps_values = values
        self.probed, self.answered = (
            (op.output_shape, op.input_shape)
            if kind == "rows"
            else (op.input_shape, op.output_shape)
        )
        # From the middle of a stride on, so that the border weighs no more than the rest.
        self.rows, self.columns = (
            list(range(min(stride // 2, extent - 1), extent, stride)) for extent in self.probed[1:]
        )
        self.pixels = [(i, j) for i in self.rows for j in self.columns]
        each = self.probed[0] * int(np.prod(self.answered))
        usual = _CHUNK // (each * max(op.dtype.itemsize, 4)) if values else _SUMMARY_BLOCK
        self.block = min(max(usual, 1) if block is None else block, len(self.pixels))
        self.blocks = -(-len(self.pixels) // self.block)
        self.batch = max(_BATCH // (each * 8), 1)

    @property
    def facts(self) -> dict[str, Any]:
        """What must be the same for a store to be gone on with."""
        op = self.op
        return {
            "kind": self.kind,
            "operator": [list(op.input_shape), list(op.output_shape)],
            "dtype": str(op.dtype).removeprefix("torch."),
            "rows": self.rows,
            "columns": self.columns,
            "values": self.keeps_values,
            "share": self.share,
            "within": self.within,
            "block": self.block,
        }

    @property
    def arrays(self) -> dict[str, Array]:
        """The arrays of the store, of each of which a block fills a chunk."""
        pixels, block = len(self.pixels), self.block
        field = (self.probed[0], *self.answered)
        kept = "float64" if self.op.dtype == torch.float64 else "float32"
        made = {name: Array((pixels,), "float64", block) for name in ("energy", "radius", "away")}
        made["origin"] = Array((self.blocks, *self.answered[1:]), "float64", 1)
        if self.keeps_values:
            made["values"] = Array((pixels, *field), kept, block)
        return made

    def pixels_of(self, b: int) -> list[tuple[int, int]]:
        return self.pixels[b * self.block : (b + 1) * self.block]

    def do(self, b: int) -> dict[str, np.ndarray]:
        """The content of a block, by array."""
        pixels = self.pixels_of(b)
        made = [self._batch(pixels[i : i + self.batch]) for i in range(0, len(pixels), self.batch)]
        whole = {name: np.concatenate([one[name] for one in made]) for name in made[0]}
        whole["origin"] = whole["origin"].sum(0, keepdims=True)
        return whole

    def _batch(self, pixels: list[tuple[int, int]]) -> dict[str, np.ndarray]:
        op, channels = self.op, range(self.probed[0])
        probes = [(c, i, j) for i, j in pixels for c in channels]
        fields = op.rows(probes) if self.kind == "rows" else op.columns(probes)
        fields = fields.reshape(len(pixels), len(channels), *self.answered)
        energy = fields.double().square().sum((1, 2))
        places = torch.tensor(pixels, dtype=torch.float64, device=op.device)[:, :, None, None]
        distance = distances(op, KINDS[self.kind], (places[:, 0], places[:, 1]))
        radius, away = reach(energy, distance, self.share, self.within)
        far = torch.where(distance > self.within, energy, 0.0).sum(0, keepdim=True)
        made = {"energy": energy.sum((1, 2)), "radius": radius, "away": away, "origin": far}
        if self.keeps_values:
            kept = torch.float64 if op.dtype == torch.float64 else torch.float32
            made["values"] = fields.to(kept)
        return {name: x.cpu().numpy() for name, x in made.items()}

    def answer(self) -> list[float]:
        """A few numbers that tell one operator from another, the size of F z first."""
        op = self.op
        generator = torch.Generator().manual_seed(1)
        z = gaussian((1, *op.input_shape), generator, op.device) / op.shape[1] ** 0.5
        y = op.filter(z.to(op.dtype)).double().flatten()
        drawn = (gaussian(y.shape, generator, op.device) for _ in range(_ANSWERS))
        return [y.norm().item(), *(torch.dot(w, y).item() for w in drawn)]


def _part(part: tuple[int, int] | None) -> tuple[int, int]:
    distributed = torch.distributed
    if part is None:
        known = distributed.is_available() and distributed.is_initialized()
        part = (distributed.get_rank(), distributed.get_world_size()) if known else (0, 1)
    rank, ranks = part
    if not 0 <= rank < ranks:
        raise ValueError(f"part wants (rank, ranks) with rank in 0 ... ranks - 1, was given {part}")
    return rank, ranks


def _opened(path: Path, work: _Work) -> Store:
    """The sweep's store, made if need be; StoreError if what is there is something else."""
    answer = work.answer()
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        make(path, work.facts | {"answer": answer}, work.arrays)
    store = Store(path)
    for name, ours in work.facts.items():
        theirs = store.facts.get(name)
        if theirs != ours:
            long = name in ("rows", "columns")
            raise StoreError(
                f"store {str(path)!r} is of another sweep: its {name} is "
                f"{'other ones' if long else theirs}, {'these' if long else ours} is wanted"
            )
    ours, theirs = np.asarray(answer), np.asarray(store.facts["answer"])
    if abs(ours - theirs).max() > torch.finfo(work.op.dtype).eps ** 0.5 * theirs[0]:
        raise StoreError(f"store {str(path)!r} is of another operator: F v differs")
    return store
