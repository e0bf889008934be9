"""`linscope region`: how far from a photo the frozen network is the network itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..report import BadInput, publish
from ..report.walks import walk_sheet
from ..study.errors import require_between
from ..study.named import load_photo
from ..study.region import Unit
from ..study.system import EITHER, System
from ..study.walks import Walk, directions, moments, walks
from .command import Command
from .options import DTYPE, SAVE, Options, output_options, system_options
from .request import Request

_DEFAULT = ("v1", "fgsm", "noise")
_PHOTOS = ("coffee", "astronaut")  # the first that is not the network's own
_TENTH = 0.1

_OPTIONS: Options = {
    ("--direction",): {
        "action": "append",
        "metavar": "NAME",
        "help": "where to go: v1, v2 ... (eigen-inputs), fgsm (the sign of a classifier's "
        "gradient, or of the row of F of a pixel), noise, or a photo to go towards, a file or a "
        f"name; again for more (default: {', '.join((*_DEFAULT, _PHOTOS[0]))})",
    },
    ("--draws",): {
        "type": int,
        "default": 4,
        "metavar": "N",
        "help": "draws of noise, for a mean and a deviation (default: %(default)s)",
    },
    ("--points",): {
        "type": int,
        "default": 12,
        "metavar": "N",
        "help": "distances at which the network is run (default: %(default)s)",
    },
    ("--most",): {
        "type": float,
        "default": 64.0,
        "metavar": "T",
        "help": "the largest of them, in grey levels of 255 (default: %(default)g)",
    },
}

# Rounding would hide how close the first flip is.
_DTYPE: Options = {flags: {**option, "default": "float64"} for flags, option in DTYPE.items()}
_DTYPE[("--dtype",)]["help"] = "float32 or float64 (default: %(default)s)"


def _run(request: Request) -> None:
    args = request.args
    require_between("--draws", args.draws, 2, 64)
    require_between("--points", args.points, 3, 100)
    if not 0 < args.most <= 255:
        raise BadInput(f"--most wants grey levels above 0 and up to 255, was given {args.most:g}")
    other = next(name for name in _PHOTOS if name != args.image)
    names = list(dict.fromkeys(args.direction or (*_DEFAULT, other)))
    with request.working() as progress:
        system = request.system(EITHER, progress)

        def towards(name: str) -> Tensor:
            image = load_photo(name).image
            return EITHER.fit(request.network, image, request.size)[1]

        ways = directions(system, names, towards, args.draws, progress)
        found = walks(system, ways, args.points, args.most, progress)
        progress(0.97, "drawing")
        numbers = _numbers(request, system, found)
        policy = "" if args.policy == "paper" else f", {args.policy}"
        title = f"{system.name}{policy} on {request.input_name}: how far the frozen network holds"
        drawn = {"region.png": walk_sheet(found, title, _note(found))}
    drawn["region.json"] = (json.dumps(numbers, indent=2) + "\n").encode()
    publish(request.out, drawn)
    request.tell(numbers, lambda: _outline(numbers, request.out / "region.png"))


def _note(found: list[Walk]) -> str:
    if found[0].reason is not None:
        return "Measured: some decisions are numbers, which move from the start, and so do errors."
    return "Dotted: the first flip, t*, up to which the frozen network is the network itself."


def _numbers(request: Request, system: System, found: list[Walk]) -> dict[str, Any]:
    op, reason = system.op, found[0].reason
    return {
        "network": system.name,
        "photo": request.input_name,
        "policy": op.policy.default,
        "dtype": str(op.dtype).removeprefix("torch."),
        "exact": reason is None,
        "reason": reason,
        "decisions": int(found[0].drifts[0].decisions.sum()),
        "layers": found[0].drifts[0].names,
        "walks": [_walk(walk) for walk in found],
        **({"framing": request.framing} if request.framing else {}),
    }


def _walk(walk: Walk) -> dict[str, Any]:
    way = walk.direction
    firsts = [region.high for region in walk.regions]
    backward = [-region.low for region in walk.regions]
    return {
        "direction": way.name,
        "steps": len(way.steps),
        "largest": way.largest,
        "end": way.end,
        "first": _moments(firsts),
        "first_backward": _moments(backward),
        "seen": None if walk.reason is None else _finite(walk.seen),
        "units": [[_unit(u) for u in region.ahead] for region in walk.regions],
        "tenth": _finite(walk.reaches(_TENTH)),
        "t": walk.drifts[0].ts.tolist(),
        "relative_error": _rows(walk.relative),
        "flipped": _rows(walk.share),
        "flipped_by_layer": [
            [None if math.isnan(v) else v for v in row] for row in walk.by_entry.tolist()
        ],
    }


def _moments(values: list[float]) -> dict[str, Any] | None:
    """Mean and deviation; None of nothing."""
    if not values:
        return None
    mean, deviation = moments(torch.tensor(values, dtype=torch.float64))
    return {"mean": _finite(mean), "deviation": _finite(deviation), "each": _finite(values)}


def _rows(values: Tensor) -> dict[str, Any]:
    spread = values.std(0) if len(values) > 1 else values[0] * 0
    return {"mean": _finite(values.mean(0).tolist()), "deviation": _finite(spread.tolist())}


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value if math.isfinite(value) else None


def _unit(unit: Unit) -> dict[str, Any]:
    return {**vars(unit), "place": list(unit.place)}


def _outline(numbers: dict[str, Any], picture: Path) -> str:
    how = "exact" if numbers["exact"] else f"measured: {numbers['reason']} is not one of several"
    lines = [
        f"{numbers['network']} on {numbers['photo']}, {numbers['decisions']:,} decisions ({how})",
        "t in grey levels of 255, root mean square over the picture",
        f"  {'direction':12} {'first flip t*':>21} {'error 10 %':>11} {'flipped at 1':>13} "
        f"{'largest at 1':>13}  flips first",
    ]
    for walk in numbers["walks"]:
        lines.append(
            f"  {walk['direction'][-12:]:12} {_first(walk):>21} {_number(walk['tenth']):>11} "
            f"{_at_one(walk):>13} {walk['largest']:>13.3g}  {_named(walk)}"
        )
    return "\n".join([*lines, f"picture: {picture}"])


def _first(walk: dict[str, Any]) -> str:
    if walk["first"] is None:
        low, high = walk["seen"]
        return f"{low:.3g} ... {_number(high)}"
    first = walk["first"]
    more = f" +- {_number(first['deviation'])}" if walk["steps"] > 1 else ""
    return f"{_number(first['mean'])}{more}"


def _number(value: float | None) -> str:
    return "never" if value is None else f"{value:.3g}" if value else "at once"


def _at_one(walk: dict[str, Any]) -> str:
    """The share that flipped at the distance tried that is next to one grey level."""
    at = min(range(len(walk["t"])), key=lambda i: abs(math.log(walk["t"][i])))
    share = walk["flipped"]["mean"][at]
    return "none" if share is None else f"{100 * share:.2g} %"


def _named(walk: dict[str, Any]) -> str:
    firsts = [units[0] for units in walk["units"] if units]
    if not firsts:
        return ""
    unit = min(firsts, key=lambda unit: unit["t"])
    place = ", ".join(map(str, unit["place"]))
    return f"{unit['kind']} in {unit['module']} at {place}"


COMMAND = Command(
    name="region",
    help="how far from the photo the frozen network is the network itself",
    description="Walks away from the photo, along eigen-inputs, an attack, noise and towards\n"
    "another photo: at which distance a first decision flips, exactly, and which one; which\n"
    "share of them flips further away, in which layer; and how wrong F x + r becomes, in\n"
    "region.png. Networks that decide by numbers too (instance norms, gates) are measured.",
    examples="""examples:
  linscope region
  linscope region --model squeezenet1_1 --direction v1 --direction noise --draws 16
  linscope region --model upconv7_photo --image astronaut --direction holiday.jpg
  linscope region --model cyclegan_vintage --points 8 --json > numbers.json""",
    options=system_options()
    | _DTYPE
    | SAVE
    | _OPTIONS
    | output_options("the numbers", "linscope-region"),
    run=_run,
)
