"""`linscope fields`: a row and a column of F, at one pixel."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from ..report import BadInput, publish
from ..report.digits import percent
from ..report.field_sheet import field_sheet
from ..study.close_up import detailed_pixel
from ..study.fields import Field, Fields, corresponding, fields
from ..study.system import System, share_in_words
from .command import Command
from .options import PIXEL, PROGRAM, REACH, SAVE, Options, output_options, system_options
from .request import Request

_OPTIONS: Options = {
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


def _run(request: Request) -> None:
    with request.working() as progress:
        found = []
        for system in request.systems(progress):
            progress(0.5, f"fields of {system.name}")
            found.append((system, _fields(system, request.args)))
        progress(0.9, "drawing")
        photo = request.input_name
        pixel = found[0][1].projective.pixel
        title = f"fields at row {pixel[0]}, column {pixel[1]} of {photo}"
        publish(request.out, {"fields.png": field_sheet(found, title)})
    numbers = {
        "photo": photo,
        "picture": str(request.out / "fields.png"),
        "systems": [
            system.facts
            | {"receptive": _numbers(both.receptive), "projective": _numbers(both.projective)}
            for system, both in found
        ],
    }
    request.tell(numbers, lambda: _outline(numbers))


def _fields(system: System, args: Namespace) -> Fields:
    op = system.op
    pixel = args.pixel
    if pixel is None:
        pixel = corresponding(op, detailed_pixel(op.x0[0]), "input")[args.at]
    if min(*pixel, args.channel or 0) < 0:  # which a program may count from the end
        raise BadInput("--pixel and --channel count from 0")
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
        "support": None if field.support is None else [list(ends) for ends in field.support],
    }


def _outline(numbers: dict[str, Any]) -> str:
    lines = []
    for system in numbers["systems"]:
        ratio = share_in_words(system["norm_residual_over_output"])
        lines.append(f"{system['system']} on {numbers['photo']}: {ratio}")
        for kind in ("receptive", "projective"):
            one = system[kind]
            lines.append(
                f"  {kind:10} at {one['probe'][0]},{one['probe'][1]}: {one['share']:.0%} of the "
                f"energy within {one['radius']:.3g} pixels of the input, {percent(one['away'])} "
                f"further than {one['within']:g}"
            )
            if one["support"] is not None:
                height, width = (end - start for start, end in one["support"])
                lines.append(f"{'':13} the network lets through {height} x {width} pixels")
    return "\n".join([*lines, f"picture: {numbers['picture']}"])


COMMAND = Command(
    name="fields",
    help="what an output pixel uses, and what an input pixel affects",
    description="Draws a row of F (the receptive filter of an output pixel) and a column (the\n"
    "projective filter of an input pixel), how far their energy reaches, and how much of it\n"
    "lies away from the diagonal, in fields.png.",
    examples="""examples:
  linscope fields --pixel 20,14
  linscope fields --model cyclegan_vintage --size 128 --at output --out vintage
  linscope fields --model cyclegan-random --policy paper --policy centered --policy taylor
  linscope fields --model upconv7_photo --json > numbers.json""",
    options=system_options(several=True)
    | PROGRAM
    | SAVE
    | PIXEL
    | _OPTIONS
    | REACH
    | output_options("the numbers", "linscope-fields"),
    run=_run,
    wants="picture",
)
