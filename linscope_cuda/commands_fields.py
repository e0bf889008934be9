"""`linscope fields` and `linscope sweep`: rows and columns of F, at one pixel or at all."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from . import cli, zoo
from .fields import Field, Fields, checked_reach, corresponding, fields
from .policy import POLICIES
from .report import BadInput, publish, require_writable
from .report.field import detailed_pixel
from .report.field_sheet import field_sheet, sweep_sheet
from .report.system import System, frozen
from .report.tour import DEFAULT_SIZE, SIZES
from .sweep import KINDS, StoreError, Sweep, sweep

_EXAMPLES = """examples:
  linscope fields --pixel 20,14
  linscope fields --model cyclegan_vintage --size 128 --at output --out vintage
  linscope fields --model cyclegan-random --policy paper --policy centered --policy taylor
  linscope fields --model upconv7_photo --json > numbers.json"""

_SWEEP_EXAMPLES = """examples:
  linscope sweep --size 16                              every row of F, in linscope-sweep/rows.zarr
  linscope sweep --model cyclegan_vintage --size 128 --stride 16 --no-values
  torchrun --nproc-per-node 2 -m linscope_cuda sweep    the same store, shared by two processes
The same command goes on where it was stopped."""


def system_options(several: bool) -> dict[tuple[str, ...], dict[str, Any]]:
    """Options that say which systems are looked at: `several`, or one.

    system_options(several=True)
    """
    again: dict[str, Any] = {"action": "append"} if several else {}
    more = "; again for a second one" if several else ""
    return {
        ("--model",): {
            **again,
            "metavar": "NAME",
            "help": f"a network of the zoo: {', '.join(zoo.names())} (default: "
            f"pixelshuffle4_x3){more}",
        },
        ("--policy",): {
            **again,
            "choices": POLICIES,
            "help": f"how nonlinear functions are frozen (default: paper){more}",
        },
        ("--image",): {
            "default": "cat",
            "metavar": "FILE|NAME",
            "help": "an image file, or a photo of the zoo such as cat, astronaut, imagenet_00_243 "
            "(default: %(default)s)",
        },
        ("--size",): {
            "type": int,
            "metavar": "N",
            "help": f"side of the input in pixels, {SIZES[0]} ... {SIZES[1]} (default: what the "
            f"network wants, or {DEFAULT_SIZE})",
        },
        ("--device",): {
            "default": "cpu",
            "help": "cpu, cuda or cuda:1 (default: %(default)s)",
        },
        ("--dtype",): {
            "choices": cli.DTYPES,
            "default": "float32",
            "help": "float32 or float64 (default: %(default)s)",
        },
        ("--json",): {"action": "store_true", "help": "print the numbers as JSON"},
    }


_REACH: dict[tuple[str, ...], dict[str, Any]] = {
    ("--share",): {
        "type": float,
        "default": 0.9,
        "metavar": "S",
        "help": "the share of the energy that the radius holds (default: %(default)s)",
    },
    ("--within",): {
        "type": float,
        "metavar": "PIXELS",
        "help": "further away, in pixels of the input, is away from the diagonal (default: an "
        "eighth of the input's shorter side)",
    },
}


def _out(folder: str) -> dict[tuple[str, ...], dict[str, Any]]:
    return {
        ("--out",): {
            "default": Path(folder),
            "type": Path,
            "metavar": "DIR",
            "help": "the folder to write to (default: %(default)s)",
        }
    }


def add_parser(subparsers: Any) -> None:
    """Adds the two commands to the parsers of `linscope`.

    add_parser(parser.add_subparsers())
    """
    raw = argparse.RawDescriptionHelpFormatter
    one = subparsers.add_parser(
        "fields",
        help="what an output pixel uses, and what an input pixel affects",
        description="Draws a row of F (the receptive filter of an output pixel) and a column (the\n"
        "projective filter of an input pixel), how far their energy reaches, and how much of it\n"
        "lies away from the diagonal, in fields.png.",
        epilog=_EXAMPLES,
        formatter_class=raw,
    )
    pixel: dict[tuple[str, ...], dict[str, Any]] = {
        ("--pixel",): {
            "type": _pixel,
            "metavar": "ROW,COLUMN",
            "help": "the probed pixel (default: a detailed one of the input)",
        },
        ("--at",): {
            "choices": ("input", "output"),
            "default": "input",
            "help": "where that pixel is; the other field is probed at the pixel that corresponds "
            "(default: %(default)s)",
        },
        ("--channel",): {
            "type": int,
            "metavar": "C",
            "help": "the probed channel, from 0 (default: all of them at once)",
        },
    }
    every = subparsers.add_parser(
        "sweep",
        help="all rows or all columns of F, in a store on disk",
        description="Writes all rows or all columns of F to a zarr store, pixel by pixel, and\n"
        "draws maps of their energy, reach and mass away from the diagonal. A sweep that was\n"
        "stopped, in whatever way, goes on; several processes may share one.",
        epilog=_SWEEP_EXAMPLES,
        formatter_class=raw,
    )
    of_sweep: dict[tuple[str, ...], dict[str, Any]] = {
        ("--kind",): {
            "choices": KINDS,
            "default": "rows",
            "help": "rows of F, by output pixel, or its columns, by input pixel (default: "
            "%(default)s)",
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
    for command, run_it, options in (
        (one, run, {**system_options(True), **pixel, **_REACH, **_out("linscope-fields")}),
        (
            every,
            run_sweep,
            {**system_options(False), **of_sweep, **_REACH, **_out("linscope-sweep")},
        ),
    ):
        command.set_defaults(run=run_it)
        for flags, option in options.items():
            command.add_argument(*flags, **option)


def _pixel(text: str) -> tuple[int, int]:
    row, column = text.split(",")
    return int(row), int(column)


_pixel.__name__ = "pixel ROW,COLUMN"  # as argparse's complaint names it


def systems(args: argparse.Namespace, progress: Any) -> list[System]:
    """The systems that the options name: each network by each policy. BadInput as `frozen` says.

    systems(args, lambda share, text: None)
    """
    photo = cli._photo(args.image)
    networks = {name: cli._network(name) for name in _listed(args.model, "pixelshuffle4_x3")}
    policies = list(dict.fromkeys(_listed(args.policy, "paper")))
    found = []
    for model, network in networks.items():
        for policy in policies:
            name = model if policies == ["paper"] else f"{model}, {policy}"
            progress(0.0, f"freezing {name}")
            dtype = cli.DTYPES[args.dtype]
            found.append(frozen(network, photo.image, name, policy, args.size, args.device, dtype))
    return found


def _listed(option: str | list[str] | None, default: str) -> list[str]:
    return [option] if isinstance(option, str) else option or [default]


@contextmanager
def enough_memory(device: str) -> Iterator[None]:
    """BadInput in place of what torch says when a device is full.

    with enough_memory("cuda"): ...
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BadInput(f"{device} has too little memory; try a smaller --size") from error


def run(args: argparse.Namespace) -> None:
    """`linscope fields`."""
    cli._check_device(args.device)
    require_writable(args.out)
    with cli._progress() as progress, enough_memory(args.device):
        found = []
        for system in systems(args, progress):
            progress(0.5, f"fields of {system.name}")
            found.append((system, _fields(system, args)))
        progress(0.9, "drawing")
        photo = cli._photo(args.image).name
        pixel = found[0][1].projective.pixel
        title = f"fields at row {pixel[0]}, column {pixel[1]} of {photo}"
        publish(args.out, {"fields.png": field_sheet(found, title)})
    numbers = {
        "photo": photo,
        "picture": str(args.out / "fields.png"),
        "systems": [
            system.facts
            | {"receptive": _numbers(both.receptive), "projective": _numbers(both.projective)}
            for system, both in found
        ],
    }
    print(json.dumps(numbers, indent=2) if args.json else _outline(numbers))


def _fields(system: System, args: argparse.Namespace) -> Fields:
    op = system.op
    pixel = args.pixel
    if pixel is None:
        pixel = corresponding(op, detailed_pixel(op.x0[0]), "input")[args.at]
    channels = "sum" if args.channel is None else [args.channel]
    try:
        return fields(op, pixel, args.at, channels, args.share, args.within)
    except ValueError as error:
        raise BadInput(str(error)) from error


def _numbers(field: Field) -> dict[str, Any]:
    return {
        "probe": list(field.pixel),
        "centre": list(field.centre),
        "energy": field.energy.sum().item(),
        "share": field.share,
        "radius": field.radius.item(),
        "within": field.within,
        "away": field.away.item(),
    }


def _outline(numbers: dict[str, Any]) -> str:
    lines = []
    for system in numbers["systems"]:
        ratio = system["norm_residual_over_output"]
        lines.append(f"{system['system']} on {numbers['photo']}: |r| / |y| = {ratio:.4g}")
        for kind in ("receptive", "projective"):
            one = system[kind]
            lines.append(
                f"  {kind:10} at {one['probe'][0]},{one['probe'][1]}: {one['share']:.0%} of the "
                f"energy within {one['radius']:.3g} pixels of the input, {one['away']:.2%} "
                f"further than {one['within']:g}"
            )
    return "\n".join([*lines, f"picture: {numbers['picture']}"])


def run_sweep(args: argparse.Namespace) -> None:
    """`linscope sweep`."""
    if args.stride < 1:
        raise BadInput(f"stride wants 1 or more, was given {args.stride}")
    rank, ranks = (int(os.environ.get(name, n)) for name, n in (("RANK", 0), ("WORLD_SIZE", 1)))
    if args.device == "cuda" and ranks > 1:
        args.device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    cli._check_device(args.device)
    require_writable(args.out)
    store, picture = args.out / f"{args.kind}.zarr", args.out / f"{args.kind}.png"
    with cli._progress() as progress:
        (system,) = systems(args, progress)
    try:
        checked_reach(system.op, args.share, args.within)
    except ValueError as error:
        raise BadInput(str(error)) from error
    with enough_memory(args.device):
        found = _swept(system, args, store, (rank, ranks))
    if found.complete:
        title = f"all {args.kind} of F" if args.stride == 1 else f"{args.kind} of F"
        title += f": {system.name} on {cli._photo(args.image).name}"
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
