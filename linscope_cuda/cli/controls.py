"""`linscope controls`: what a classifier's explanations are worth, beside baselines."""

from __future__ import annotations

import json
import logging
from typing import Any

import torch

from ..report import BadInput, publish
from ..report.controls import controls_sheet
from ..report.digits import significant
from ..study.attributions import OF_CAPTUM, OURS, available
from ..study.controls import CASES, SHARES, Controls, controls
from ..study.errors import require_between
from ..study.photos import SCORES_SIZE, freezable, resized, scores
from .command import Command
from .options import Options, output_options, system_options
from .photos import PHOTOS, photos_of, read
from .request import Request

_LOG = logging.getLogger(__name__)
_CERTAIN = 2.0  # standard errors

_OPTIONS: Options = {
    ("--patch",): {
        "type": int,
        "default": 8,
        "metavar": "PIXELS",
        "help": "the side of the patches that are taken and given back (default: %(default)s)",
    },
    ("--cascaded",): {
        "type": int,
        "default": 5,
        "metavar": "N",
        "help": "photos whose maps are made again with shuffled weights (default: %(default)s)",
    },
}


def _run(request: Request) -> None:
    args = request.args
    require_between("--patch", args.patch, 1, 64)
    require_between("--cascaded", args.cascaded, 1, 1000)
    network = resized(request.network, request.size)
    # Of each photo only what the network takes: of thousands, themselves they would not fit.
    names, inputs = [], []
    for photo in map(read, photos_of(args)):
        names.append(photo.name)
        inputs.append(network.preprocess(photo.image).to(request.device, request.dtype))
    methods = available()
    if not set(OF_CAPTUM) <= set(methods):
        _LOG.warning("without Captum (pip install captum) %s are left out", " and ".join(OF_CAPTUM))
    model = network.model.to(request.device, request.dtype)
    with request.working() as progress:
        labels = scores(model, inputs[0], args.model).shape[1]
        if labels < 2:
            raise BadInput(f"{args.model} gives one score, and labels to choose from are wanted")
        with freezable(args.model):
            found = controls(
                model,
                inputs,
                methods,
                policy=args.policy,
                cascaded=args.cascaded,
                patch=args.patch,
                progress=lambda share: progress(share, names[round(share * len(names))]),
            )
        progress(0.99, "drawing")
        numbers = _numbers(request, found)
        title = f"{args.model}: what its explanations are worth"
        drawn = {"controls.png": controls_sheet(found, title, _note(found))}
    drawn["controls.json"] = (json.dumps(numbers, indent=2) + "\n").encode()
    publish(request.out, drawn)
    request.tell(numbers, lambda: _outline(request, numbers))


def _note(found: Controls) -> str:
    cascaded = len(next(iter(found.alike.values()), []))
    return (
        f"Means over {_photos(found.photos)} and their best labels; likeness: rank correlation "
        f"over {_photos(cascaded)}. Controls are dashed."
    )


def _photos(count: int) -> str:
    return f"{count} photo{'s' if count > 1 else ''}"


def _numbers(request: Request, found: Controls) -> dict[str, Any]:
    args = request.args
    baselines = [m for m in found.methods if m not in OURS]
    return {
        "network": args.model,
        "photos": found.photos,
        "policy": args.policy,
        "dtype": args.dtype,
        "patch": args.patch,
        "shares": SHARES,
        "methods": {
            method: {
                **{which: _curve(found, which, method) for which in ("deletion", "insertion")},
                "likeness": _likeness(found, method),
                "better_than": {
                    which: {than: _pair(found.better(which, method, than)) for than in baselines}
                    for which in ("deletion", "insertion")
                }
                if method in OURS
                else None,
            }
            for method in found.methods
        },
        "modules_shuffled": found.counts,
        "modules": found.modules,
        "entries": found.entries(),
        "parts": {case: _parts(found, case) for case in CASES},
    }


def _curve(found: Controls, which: str, method: str) -> dict[str, Any]:
    curves, areas = torch.stack(getattr(found, which)[method]), found.areas(which, method)
    return {
        "curve": curves.mean(0).tolist(),
        "area": areas.mean().item(),
        "deviation": areas.std().item() if len(areas) > 1 else None,
    }


def _likeness(found: Controls, method: str) -> list[float | None]:
    means = torch.stack(found.alike[method]).nanmean(0).tolist()
    return [None if mean != mean else mean for mean in means]


def _pair(found: tuple[float, float]) -> dict[str, float | None]:
    mean, error = found
    return {"mean": mean, "standard_error": None if error != error else error}


def _parts(found: Controls, case: str) -> dict[str, dict[str, float]]:
    names, rows = found.entries(), found.parts[case]
    values = torch.tensor([[row.get(name, 0.0) for name in names] for row in rows])
    spread = values.std(0) if len(values) > 1 else torch.zeros_like(values[0])
    pairs = zip(names, values.mean(0).tolist(), spread.tolist(), strict=True)
    return {name: {"mean": mean, "deviation": deviation} for name, mean, deviation in pairs}


def _outline(request: Request, numbers: dict[str, Any]) -> str:
    lines = [
        f"{numbers['network']}, {_photos(numbers['photos'])}, patches of {numbers['patch']} pixels",
        f"  {'':21} {'deletion':>20} {'insertion':>20}  likeness, all modules shuffled",
    ]
    for method, of in numbers["methods"].items():
        areas = " ".join(_area(of[which]) for which in ("deletion", "insertion"))
        alike = of["likeness"][-1]
        last = "none" if alike is None else f"{alike:.2f}"
        lines.append(f"  {method:21} {areas}  {last}")
    lines.append("area under the curve: deletion is better small, insertion large")
    for method in OURS:
        for which in ("deletion", "insertion"):
            for than, pair in numbers["methods"][method]["better_than"][which].items():
                lines.append(f"  {method}, {which}: {_verdict(pair)} {than}")
    inputs = {case: next(iter(parts.values()))["mean"] for case, parts in numbers["parts"].items()}
    lines.append("share of the input in a score's ledger, without signs")
    lines += [f"  {case:21} {value:.3f}  {CASES[case]}" for case, value in inputs.items()]
    return "\n".join([*lines, f"picture: {request.out / 'controls.png'}"])


def _area(of: dict[str, Any]) -> str:
    spread = "" if of["deviation"] is None else f" +- {significant(of['deviation'], 2)}"
    return f"{significant(of['area'], 3) + spread:>20}"


def _verdict(pair: dict[str, float | None]) -> str:
    mean, error = pair["mean"], pair["standard_error"]
    assert mean is not None
    if error is None or abs(mean) < _CERTAIN * error:
        return "not told from"
    return "better than" if mean > 0 else "worse than"


COMMAND = Command(
    name="controls",
    help="what a classifier's explanations are worth, beside baselines",
    description="Asks of the paper's two maps of a score, row times input and discussion, what is\n"
    "asked of every attribution: does the label go when the best patches do, and come with\n"
    "them; does the map change when the weights are shuffled? Beside Captum's integrated\n"
    "gradients and saliency, nearness to the centre, and chance. And of ledgers: are the\n"
    "shares of the layers those of any label, any picture, any weights?",
    examples="""examples:
  linscope controls
  linscope controls --model efficientnet_lite0 --out controls
  linscope controls --images holidays --patch 16 --json > numbers.json""",
    options=system_options("squeezenet1_1", None, SCORES_SIZE)
    | PHOTOS
    | _OPTIONS
    | output_options("the numbers", "linscope-controls"),
    run=_run,
    wants="scores",
)
