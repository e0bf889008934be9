"""`linscope ledger --of`: what is inside of a network and adds to a photo's score."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from ..frozen.inside import named
from ..report import BadInput, publish
from ..report.digits import percent, significant
from ..report.inside_sheet import inside_sheet
from ..study.activations import Activations
from ..study.errors import require_between
from ..study.ledger import Ledger, ledger
from ..study.system import SCORES, System
from .request import Request

_MOST = 60


def inside(request: Request) -> None:
    args = request.args
    at = "input" if args.given else "output"
    require_between("--channels", args.channels, 1, _MOST)
    with request.working() as progress:
        modules = dict(request.network.model.named_modules(remove_duplicate=False))
        try:
            names = named(modules, args.of)
        except ValueError as error:
            raise BadInput(f"{args.model}: {error}") from error
        alone = len(names) == 1 and "*" not in args.of[0]
        if not alone and (args.call is not None or args.dim is not None or args.groups is not None):
            raise BadInput(
                "--call, --dim and --groups are about one module, and --of names several"
            )
        system = request.system(SCORES, progress)
        op = system.op
        label = int(op.output.argmax()) if args.label is None else args.label
        require_between("--label", label, 0, op.shape[0] - 1)
        numbers: dict[str, Any] = {
            "network": args.model,
            "photo": request.photo.name,
            "source": request.network.source,
            "preprocess": repr(system.preprocess),
            "policy": args.policy,
            "dtype": args.dtype,
            "label": label,
            "name": request.network.class_name(label),
            "score": op.output[0, label].item(),
            "of": names,
            "at": at,
        }
        progress(0.9, "adding up")
        try:
            if alone:
                one = ledger(op, [label], of=names[0], at=at, call=args.call)
                drawn = _one(request, system, one, numbers)
            else:
                several = ledger(op, [label], of=names, at=at)
                drawn = _several(request, system, several, names, numbers)
        except ValueError as error:
            raise BadInput(f"{args.model}: {error}") from error
    numbers |= {"framing": request.framing} if request.framing else {}
    numbers["files"] = sorted([*drawn, "ledger.json"])
    drawn["ledger.json"] = (json.dumps(numbers, indent=2) + "\n").encode()
    publish(request.out, drawn)
    request.tell(numbers, lambda: _outline(request, numbers))


def _one(
    request: Request, system: System, found: Activations, numbers: dict[str, Any]
) -> dict[str, bytes]:
    """Of one module: numbers, and files by their names."""
    args = request.args
    kind = "group" if args.groups else "channel"
    channels, places = found.channels(args.dim, args.groups)[0], found.places(args.dim)[0].cpu()
    order, values = channels.abs().argsort(descending=True).tolist(), channels.tolist()
    shown, others = order[: args.channels], order[args.channels :]
    past = _past(found.rest)
    numbers |= {
        "tensor": found.name,
        "shape": list(found.activation.shape),
        "call": args.call,
        "through": found.through.item(),
        "past": past,
        "sum": found.total.item(),
        "kind": kind,
        "count": len(values),
        "magnitude_of_strongest": _share(values, shown),
        "strongest": [{kind: i, "contribution": values[i]} for i in shown],
    }
    bars = [(f"{kind} {i}", values[i]) for i in shown]
    if others:
        bars.append((f"the other {len(others)}", sum(values[i] for i in others)))
    title = f"{args.model} on {request.photo.name}: what {found.name} adds to a score"
    is_map = places.dim() == 2
    files = {
        f"{kind}s.csv": _csv([kind, "contribution"], enumerate(values)),
        "ledger.png": inside_sheet(
            system.input,
            places if is_map else None,
            bars,
            _bars(past),
            title,
            f"{_score(numbers)}: all bars together",
        ),
    }
    if is_map:
        rows = ([i, *row] for i, row in enumerate(places.tolist()))
        files["places.csv"] = _csv(["row", *range(places.shape[1])], rows)
    return files


def _several(
    request: Request, system: System, found: Ledger, names: list[str], numbers: dict[str, Any]
) -> dict[str, bytes]:
    """Of several modules, each path for the last of them that it passes."""
    entries = dict(zip(found.names, found.values[:, 0].tolist(), strict=True))
    modules = {n: v for n, v in entries.items() if n.partition(" (")[0] in names}
    past = {"input": found.input.item()}
    past |= {"offsets": {n: v for n, v in entries.items() if n not in modules}}
    numbers |= {"modules": modules, "past": past, "sum": found.total.item()}
    title = f"{request.args.model} on {request.photo.name}: what modules add to a score"
    note = f"{_score(numbers)}: all bars together; a path counts for the last module on it"
    bars = list(modules.items())
    return {
        "modules.csv": _csv(["module", "contribution"], bars),
        "ledger.png": inside_sheet(system.input, None, bars, _bars(past), title, note),
    }


def _share(values: list[float], shown: list[int]) -> float | None:
    """Of the magnitudes of all, that of those shown."""
    whole = sum(map(abs, values))
    return sum(abs(values[i]) for i in shown) / whole if whole else None


def _past(rest: Ledger) -> dict[str, Any]:
    offsets = dict(zip(rest.names, rest.values[:, 0].tolist(), strict=True))
    return {"input": rest.input.item(), "offsets": offsets}


def _bars(past: dict[str, Any]) -> list[tuple[str, float]]:
    offsets = sum(past["offsets"].values())
    return [("past it: the input", past["input"]), ("past it: offsets", offsets)]


def _score(numbers: dict[str, Any]) -> str:
    return f"{numbers['name']}, score {significant(numbers['score'])}"


def _csv(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode()


def _outline(request: Request, numbers: dict[str, Any]) -> str:
    past = numbers["past"]
    rows = [("past it: the input", past["input"])]
    rows += [("past it: offsets", sum(past["offsets"].values())), ("sum", numbers["sum"])]
    if "modules" in numbers:
        what = f"{len(numbers['modules'])} modules"
        rows = [*numbers["modules"].items(), *rows]
    else:
        kind, shape = numbers["kind"], " x ".join(map(str, numbers["shape"]))
        what = f"{numbers['tensor']}, {shape}, {numbers['count']} {kind}s"
        share = numbers["magnitude_of_strongest"]
        if share is not None:
            what += f"; those listed have {percent(share)} of all magnitudes"
        strongest = [(f"{kind} {row[kind]}", row["contribution"]) for row in numbers["strongest"]]
        rows = [(f"through {numbers['tensor']}", numbers["through"]), *strongest, *rows]
    wide = max(len(name) for name, _ in rows)
    first = f"{numbers['network']} on {numbers['photo']}: {_score(numbers)}; {what}"
    lines = [f"  {name:{wide}}  {significant(value):>10}" for name, value in rows]
    error = abs(numbers["sum"] - numbers["score"])
    if not error <= 1e-3 * abs(numbers["score"]):
        lines.append(f"caution: the sum differs from the score by {error:.0e}")
    return "\n".join([first, *lines, f"pictures and tables: {request.out}"])
