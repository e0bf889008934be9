"""`linscope sweep`: all rows or all columns of F, in a store on disk."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from ..report import BadInput, publish, require_writable
from ..report.field_sheet import sweep_sheet
from ..study.fields import checked_reach
from ..study.sweep import KINDS, StoreError, Sweep, sweep
from ..study.system import System
from .command import (
    Command,
    Options,
    check_device,
    enough_memory,
    load_photo,
    out_option,
    progress_bar,
)
from .systems import REACH, system_options, systems

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


def _run(args: argparse.Namespace) -> None:
    """`linscope sweep`."""
    if args.stride < 1:
        raise BadInput(f"stride wants 1 or more, was given {args.stride}")
    rank, ranks = (int(os.environ.get(name, n)) for name, n in (("RANK", 0), ("WORLD_SIZE", 1)))
    if args.device == "cuda" and ranks > 1:
        args.device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    check_device(args.device)
    require_writable(args.out)
    store, picture = args.out / f"{args.kind}.zarr", args.out / f"{args.kind}.png"
    with progress_bar() as progress, enough_memory(args.device):
        (system,) = systems(args, progress)
    try:
        checked_reach(system.op, args.share, args.within)
    except ValueError as error:
        raise BadInput(str(error)) from error
    with enough_memory(args.device):
        found = _swept(system, args, store, (rank, ranks))
    if found.complete:
        title = f"all {args.kind} of F" if args.stride == 1 else f"{args.kind} of F"
        title += f": {system.name} on {load_photo(args.image).name}"
        publish(args.out, {picture.name: sweep_sheet(found, system, title)})
    numbers = _sweep_numbers(found, system) | {"picture": str(picture) if found.complete else None}
    print(json.dumps(numbers, indent=2) if args.json else _sweep_outline(numbers))


def _swept(system: System, args: argparse.Namespace, store: Path, part: tuple[int, int]) -> Sweep:
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
        )
    except (StoreError, ModuleNotFoundError) as error:
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
            f"{numbers['away']:.2%} of all the energy further than {numbers['within']:g}",
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
    options=system_options(several=False) | _OPTIONS | REACH | out_option("linscope-sweep"),
    run=_run,
)
