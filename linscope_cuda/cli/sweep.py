"""`linscope sweep`: all rows or all columns of F, in a store on disk."""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from ..report import BadInput, publish
from ..report.digits import percent
from ..report.field_sheet import sweep_sheet
from ..study.store import StoreError, needed_zarr
from ..study.sweep import KINDS, Sweep, forecast, open_sweep, sweep
from ..study.system import System
from .command import Command
from .options import PROGRAM, REACH, SAVE, Options, output_options, system_options
from .request import Request
from .terminal import enough_memory

_LOG = logging.getLogger(__name__)

_OPTIONS: Options = {
    ("--kind",): {
        "choices": KINDS,
        "default": "rows",
        "help": "rows of F, by output pixel, or its columns, by input pixel (default: %(default)s)",
    },
    ("--stride",): {
        "type": int,
        "default": 1,
        "metavar": "N",
        "help": "every so many pixels only (default: %(default)s)",
    },
    ("--no-values",): {
        "action": "store_true",
        "help": "keep the maps alone, not the rows or columns themselves",
    },
}


def _run(request: Request) -> int | None:
    args = request.args
    if args.stride < 1:
        raise BadInput(f"stride wants 1 or more, was given {args.stride}")
    rank, ranks = (int(os.environ.get(name, n)) for name, n in (("RANK", 0), ("WORLD_SIZE", 1)))
    store, picture = request.out / f"{args.kind}.zarr", request.out / f"{args.kind}.png"
    try:
        needed_zarr()
    except ModuleNotFoundError as error:
        raise BadInput(str(error)) from error
    with request.working() as progress:
        (system,) = request.systems(progress)
    with enough_memory(request.device):
        if rank == 0 and not store.exists():
            _LOG.info(_forecast(system, args, ranks))
        stopped = False
        try:
            found = _swept(system, args, store, (rank, ranks))
        except KeyboardInterrupt:
            if not store.exists():
                raise
            found, stopped = open_sweep(store), True
    if found.complete:
        title = f"all {args.kind} of F" if args.stride == 1 else f"{args.kind} of F"
        title += f": {system.name} on {request.input_name}"
        publish(request.out, {picture.name: sweep_sheet(found, system, title)})
    numbers = _sweep_numbers(found, system) | {"picture": str(picture) if found.complete else None}
    request.tell(numbers, lambda: _sweep_outline(numbers))
    if stopped:
        return request.stopped(
            f"{found.done} of {found.blocks} blocks", f"{store} has these; the same command goes on"
        )


def _forecast(system: System, args: Namespace, ranks: int) -> str:
    left = forecast(system.op, args.kind, stride=args.stride)
    passes = "" if left.passes is None else f", {_count(left.passes, 'pass', 'passes')}"
    seconds = left.seconds / ranks
    time = _count(seconds, "second", "seconds")
    if seconds > 120:
        time = _count(seconds / 60, "minute", "minutes")
    if seconds > 7200:
        time = f"{seconds / 3600:.1f} hours"
    return f"{_count(left.pixels, 'pixel', 'pixels')}{passes}: about {time}"


def _count(number: float, one: str, several: str) -> str:
    whole = max(1, round(number))
    return f"{whole:,} {one if whole == 1 else several}"


def _swept(system: System, args: Namespace, store: Path, part: tuple[int, int]) -> Sweep:
    try:
        return sweep(
            system.op,
            store,
            args.kind,
            values=not args.no_values,
            stride=args.stride,
            share=args.share,
            within=args.within,
            part=part,
            progress=False if args.quiet else None,
        )
    except StoreError as error:
        raise BadInput(str(error)) from error
    except OSError as error:
        raise BadInput(f"cannot write to {str(store)!r}: {error.strerror or error}") from error


def _sweep_numbers(found: Sweep, system: System) -> dict[str, Any]:
    radius = found.radius[~found.radius.isnan()]
    return system.facts | {
        "store": str(found.path),
        "kind": found.kind,
        "pixels": found.energy.numel(),
        "blocks": found.blocks,
        "blocks_done": found.done,
        "complete": found.complete,
        "share": found.share,
        "median_radius": radius.median().item() if len(radius) else None,
        "largest_radius": radius.max().item() if len(radius) else None,
        "within": found.within,
        "energy": found.energy.nan_to_num().sum().item(),
        "away": found.mass_away,
    }


def _sweep_outline(numbers: dict[str, Any]) -> str:
    lines = [f"{numbers['blocks_done']} of {numbers['blocks']} blocks are in {numbers['store']}"]
    if numbers["complete"] and numbers["median_radius"] is not None:
        lines += [
            f"{numbers['share']:.0%} of the energy within {numbers['median_radius']:.3g} pixels of "
            f"the input (median; largest {numbers['largest_radius']:.3g})",
            f"{percent(numbers['away'])} of all the energy further than {numbers['within']:g}",
            f"picture: {numbers['picture']}",
        ]
    return "\n".join(lines)


COMMAND = Command(
    name="sweep",
    help="all rows or all columns of F, in a store on disk",
    description="Writes all rows or all columns of F to a zarr store, pixel by pixel, and\n"
    "draws maps of their energy, reach and mass away from the diagonal. A sweep that was\n"
    "stopped, in whatever way, goes on; several processes may share one.",
    examples="""examples:
  linscope sweep --size 16                              every row of F, in linscope-sweep/rows.zarr
  linscope sweep --model cyclegan_vintage --size 128 --stride 16 --no-values
  torchrun --nproc-per-node 2 -m linscope_cuda sweep    the same store, shared by two processes
The same command goes on where it was stopped.""",
    options=system_options()
    | PROGRAM
    | SAVE
    | _OPTIONS
    | REACH
    | output_options("the numbers", "linscope-sweep"),
    run=_run,
    wants="picture",
)
