"""`linscope ledger`: whose are a classifier's scores, over a folder of photos."""

from __future__ import annotations

import csv
import json
import logging
import math
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .. import zoo
from ..report import BadInput
from ..report.charts import contributions
from ..report.digits import significant
from ..report.writing import staged
from ..study.photos import SCORES_SIZE, resized
from ..study.survey import DEFINITIONS, Account, FromPixels, Survey, accounts, raw_pixels
from .command import Command
from .inside import inside
from .options import Options, output_options, system_options
from .photos import PHOTOS, photos_of, read
from .request import Request

_LOG = logging.getLogger(__name__)

_OPTIONS: Options = {
    ("--fgsm",): {
        "type": float,
        "nargs": "+",
        "default": [],
        "metavar": "LEVELS",
        "help": "attack each photo by FGSM, moving each pixel by so many grey levels of 255",
    },
    ("--of",): {
        "action": "append",
        "metavar": "MODULE",
        "help": "of one photo instead (--image): what each channel adds that this module gives; "
        "for a pattern ('features.*.squeeze') or again for more, what each module adds",
    },
    ("--given",): {
        "action": "store_true",
        "help": "what the module is given in place of what it gives",
    },
    ("--call",): {"type": int, "metavar": "N", "help": "which of its calls, from 0"},
    ("--dim",): {
        "type": int,
        "metavar": "D",
        "help": "the dimension of its channels (default: 1 of pictures, the last of tokens)",
    },
    ("--groups",): {
        "type": int,
        "metavar": "N",
        "help": "sum the channels in so many groups, such as the heads of an attention",
    },
    ("--channels",): {
        "type": int,
        "default": 12,
        "metavar": "N",
        "help": "channels to list and draw, those that add or take most (default: %(default)s)",
    },
    ("--label",): {"type": int, "metavar": "K", "help": "the score (default: the best)"},
}

# Options of one photo alone, with what they are when they are not given.
_OF = {"given": False, "call": None, "dim": None, "groups": None, "channels": 12, "label": None}
_PHOTO = {"image": "imagenet_00_243", "crop": None, "fit": None}


def _run(request: Request) -> int | None:
    args = request.args
    given = vars(args)
    if args.of:
        if args.photos or args.images or args.fgsm:
            raise BadInput("--of is about one photo, --image; not about --photos, --images, --fgsm")
        return inside(request)
    for name, usual in (_OF | _PHOTO).items():
        if given[name] != usual:
            raise BadInput(f"--{name} is about one photo, and wants --of")
    if any(not 0 < level <= 255 for level in args.fgsm):
        raise BadInput("--fgsm wants grey levels above 0 and up to 255")
    photos = photos_of(args)
    network = resized(request.network, request.size)
    model = FromPixels(network).to(request.device, request.dtype).eval()
    levels = (0.0, *args.fgsm)
    surveys = [Survey() for _ in levels]
    silent, unreadable, stopped = 0, {}, None
    with staged(request.out) as aside, ExitStack() as stack:
        progress = stack.enter_context(request.working())
        tables = _Tables(aside, stack, network.class_name)
        for i, which in enumerate(photos):
            try:
                photo = read(which)
            except BadInput as error:
                unreadable[str(which)] = str(error)
                _LOG.warning("left out: %s", error)
                continue
            progress(i / len(photos), photo.name)
            pixels = raw_pixels(network, photo.image).to(request.device, request.dtype)
            first = silent + surveys[0].count == 0
            try:
                found = accounts(
                    model, pixels, args.fgsm, name=args.model, policy=args.policy, check=first
                )
            except KeyboardInterrupt:
                if first:
                    raise
                stopped = f"{i} of {len(photos)} photos"
                break
            if found is None:
                silent += 1
                continue
            for epsilon, account, survey in zip(levels, found, surveys, strict=True):
                survey.add(account)
                tables.add(photo, epsilon, account)
        if len(unreadable) == len(photos):
            raise BadInput(f"none of the image files in {str(args.images)!r} can be used")
        if not surveys[0].count:
            raise BadInput(f"{args.model} scores every one of these photos with 0")
        numbers = _numbers(args, network, surveys, silent, unreadable) | {"stopped": stopped}
        for epsilon, survey in zip(levels, surveys, strict=True):
            name = _named(epsilon)
            (aside / f"{name}.png").write_bytes(_picture(args.model, epsilon, survey, surveys[0]))
            _write_entries(aside / f"{name}.csv", survey)
        stack.close()  # the tables are whole before they take their place
        names = sorted([*(path.name for path in aside.iterdir()), "ledger.json"])
        numbers["files"] = names
        (aside / "ledger.json").write_text(json.dumps(numbers, indent=2) + "\n")
    request.tell(numbers, lambda: _outline(args, numbers, surveys))
    if stopped:
        return request.stopped(stopped, f"{args.out} has these")


def _named(epsilon: float) -> str:
    return f"ledger-fgsm-{epsilon:g}" if epsilon else "ledger"


class _Tables:
    """Two CSV files that grow photo by photo: what was found of each, and its ledger's entries."""

    def __init__(self, folder: Path, stack: ExitStack, class_name: Callable[[int], str]):
        self.class_name = class_name
        self.photos, self.entries = (
            csv.writer(stack.enter_context((folder / name).open("w", newline="", encoding="utf-8")))
            for name in ("photos.csv", "contributions.csv")
        )
        self.photos.writerow(
            ["photo", "label", "fgsm", "top", "name", "score", *DEFINITIONS, "top5"]
        )
        self.entries.writerow(["photo", "fgsm", "entry", "contribution", "share"])

    def add(self, photo: zoo.Photo, epsilon: float, account: Account) -> None:
        best, score = account.top[0], account.score
        label = "" if photo.label is None else photo.label
        shares = account.shares().values()
        name, top = self.class_name(best), " ".join(map(str, account.top))
        self.photos.writerow([photo.name, label, epsilon, best, name, score, *shares, top])
        for entry, value in account.parts.items():
            self.entries.writerow([photo.name, epsilon, entry, value, value / score])


def _write_entries(path: Path, survey: Survey) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["number", "entry", "mean share", "deviation"])
        for i, (name, moments) in enumerate(survey.entries.items()):
            table.writerow([i, name, moments.mean, moments.deviation])


def _picture(name: str, epsilon: float, survey: Survey, before: Survey) -> bytes:
    labels = list(survey.entries)

    def bars(of: Survey) -> list[tuple[float, float]]:
        found = [of.entries.get(label) for label in labels]
        return [(m.mean, m.deviation) if m else (0.0, 0.0) for m in found]

    count = f"{survey.count} photo{'s' if survey.count > 1 else ''}"
    shares = survey.shares["normalised r/y"].mean, survey.shares["raw r/y"].mean
    note = (
        f"mean and deviation over {count}; sum: {survey.total:.4f}. Residual r / y: "
        f"{significant(shares[0], 3)}, with the normalisation {significant(shares[1], 3)}"
    )
    if not epsilon:
        return contributions(labels, bars(survey), f"{name}: what makes the best score", note)
    legend = ("photo", f"after FGSM, {epsilon:g} of 255")
    title = f"{name}: what makes the best score, before and after an attack"
    return contributions(labels, bars(before), title, note, bars(survey), legend)


def _numbers(
    args: Namespace,
    network: zoo.Network,
    surveys: list[Survey],
    silent: int,
    unreadable: dict[str, str],
) -> dict[str, Any]:
    return {
        "network": args.model,
        "source": network.source,
        "preprocess": repr(network.preprocess),
        "photos": surveys[0].count,
        "skipped": silent,
        "unreadable": unreadable,
        "policy": args.policy,
        "dtype": args.dtype,
        "definitions": DEFINITIONS,
        "ledgers": [
            {
                "fgsm": epsilon,
                "shares": {n: _moments(m) for n, m in survey.shares.items()},
                "sum": survey.total,
                "largest_error": survey.error,
                "entries": {n: _moments(m) for n, m in survey.entries.items()},
            }
            for epsilon, survey in zip((0.0, *args.fgsm), surveys, strict=True)
        ],
    }


def _moments(moments: Any) -> dict[str, float]:
    return {"mean": moments.mean, "deviation": moments.deviation}


def _outline(args: Namespace, numbers: dict[str, Any], surveys: list[Survey]) -> str:
    lines = [f"{args.model}, best score of {surveys[0].count} photos: the residual's share"]
    for epsilon, survey in zip((0.0, *args.fgsm), surveys, strict=True):
        if epsilon:
            lines.append(f"after FGSM by {epsilon:g} grey levels")
        for name, words in DEFINITIONS.items():
            share = survey.shares[name]
            lines.append(
                f"  {significant(share.mean):>9} +- {significant(share.deviation, 2):8}  {words}"
            )
    if numbers["skipped"]:
        lines.append(f"left out: {numbers['skipped']} with a best score of 0")
    if numbers["unreadable"]:
        lines.append(f"left out: {len(numbers['unreadable'])} that cannot be used")
    worst = max(survey.error for survey in surveys)
    if not math.isfinite(worst) or worst > 1e-3:
        lines.append(f"caution: entries sum to the score to {worst:.0e} only")
    lines.append(f"pictures and tables: {args.out}")
    return "\n".join(lines)


COMMAND = Command(
    name="ledger",
    help="what makes a classifier's scores: the input, each layer's biases",
    description="Splits the best score of each photo into the part of the input, F x0, and of\n"
    "every bias (theorem 1), and shows means and deviations over the photos: a picture,\n"
    "tables, and the residual's share by four definitions side by side. Files that are no\n"
    "whole picture are named and left out. With --of, one photo's score as the sum over what\n"
    "a module inside of the network gives: its channels, places, heads; or over modules.",
    examples="""examples:
  linscope ledger
  linscope ledger --model efficientnet_lite0 --images holidays --out shares
  linscope ledger --fgsm 2 8               also after an attack by 2 and by 8 grey levels
  linscope ledger --of features.9 --image cat          its channels, and a map over the photo
  linscope ledger --of 'features.*.squeeze' --label 281
  linscope ledger --json > shares.json""",
    options=system_options("squeezenet1_1", _PHOTO["image"], SCORES_SIZE)
    | PHOTOS
    | _OPTIONS
    | output_options("the shares and entries", "linscope-ledger"),
    run=_run,
    wants="scores",
)
