"""`linscope votes`: which label each pixel votes for."""

from __future__ import annotations

import csv
import io
import json
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..frozen.network import FrozenNetwork
from ..report import publish
from ..report.charts import Label, ballot
from ..report.digits import percent, significant
from ..report.pictures import photo as draw_photo
from ..report.pictures import signed
from ..study.close_up import robust_scale
from ..study.errors import require_between
from ..study.photos import SCORES_SIZE
from ..study.system import SCORES
from ..study.votes import pixel_discussion, poll
from .command import Command
from .options import SAVE, Options, output_options, system_options
from .request import Request

MOST_LABELS = 8
UNSEEN = -1  # instead of a label, where nothing that a pixel contributes is above 0
_WHITE = 0.93  # what is not voted for is nearly white

_OPTIONS: Options = {
    ("--labels",): {
        "type": int,
        "default": 4,
        "metavar": "N",
        "help": f"labels to draw, 1 ... {MOST_LABELS}: half of them have the best scores, the "
        "others most votes (default: %(default)s)",
    },
    ("--absolute",): {
        "action": "store_true",
        "help": "a pixel votes by the magnitude of its contributions, not by their sum",
    },
}


def _run(request: Request) -> None:
    args = request.args
    require_between("--labels", args.labels, 1, MOST_LABELS)
    with request.working() as progress:
        system = request.system(SCORES, progress)
        op = system.op
        votes, won = poll(
            op, absolute=args.absolute, progress=lambda share: progress(share, "voting")
        )
        votes = torch.where(won == 0, UNSEEN, votes)
        shown = _shown(op, votes, args.labels)
        discussions = pixel_discussion(op, shown).sum(1).cpu()
    photo, network = request.photo, request.network
    table = _table(op, votes, shown, network.class_name)
    numbers: dict[str, Any] = {
        "network": args.model,
        "photo": photo.name,
        "source": network.source,
        "preprocess": repr(system.preprocess),
        "policy": args.policy,
        "dtype": args.dtype,
        "absolute": args.absolute,
        "pixels": votes.numel(),
        "unseen": int((votes == UNSEEN).sum()),
        "labels": table,
    }
    picture = system.input.clamp(0, 1).expand(3, -1, -1)
    title = f"{args.model} on {photo.name}: pixel votes"
    drawn = _files(picture, title, votes.cpu(), table, shown, discussions)
    numbers["files"] = sorted([*drawn, "votes.json"])
    drawn["votes.json"] = (json.dumps(numbers, indent=2) + "\n").encode()
    publish(request.out, drawn)
    request.tell(numbers, lambda: _outline(args, numbers))


def _shown(op: FrozenNetwork, votes: Tensor, count: int) -> list[int]:
    """The labels of the best scores, half of them, then those with most votes."""
    best = op.output[0].argsort(descending=True)[: (count + 1) // 2].tolist()
    popular = _counts(op, votes).argsort(descending=True, stable=True).tolist()
    return list(dict.fromkeys(best + popular))[:count]


def _counts(op: FrozenNetwork, votes: Tensor) -> Tensor:
    return votes[votes != UNSEEN].bincount(minlength=op.shape[0])


def _table(
    op: FrozenNetwork, votes: Tensor, shown: list[int], class_name: Callable[[int], str]
) -> list[dict[str, Any]]:
    """Every label that has votes or is shown, the most popular first."""
    counts = _counts(op, votes)
    scores = op.output[0]
    ranks = scores.argsort(descending=True).argsort() + 1
    order = counts.argsort(descending=True, stable=True).tolist()
    return [
        {
            "label": k,
            "name": class_name(k),
            "votes": int(counts[k]),
            "share": int(counts[k]) / votes.numel(),
            "score": scores[k].item(),
            "rank": int(ranks[k]),
        }
        for k in order
        if counts[k] or k in shown
    ]


def _files(
    picture: Tensor,
    title: str,
    votes: Tensor,
    table: list[dict[str, Any]],
    shown: list[int],
    discussions: Tensor,
) -> dict[str, bytes]:
    rows = {row["label"]: row for row in table}
    labels, files = [], {}
    for k, discussion in zip(shown, discussions, strict=True):
        row = rows[k]
        masked = torch.where(votes == k, picture, _WHITE)
        labels.append(Label(row["name"], row["score"], row["share"], discussion, masked))
        share = percent(row["share"])
        name = row["name"] if len(row["name"]) <= 30 else row["name"][:29] + "\u2026"
        files[f"votes-{k}.png"] = draw_photo(masked, f"{share} vote for {name}")
        files[f"discussion-{k}.png"] = signed(
            discussion,
            f"discussion of {title}",
            "contribution to the score, back-projected",
            scale=robust_scale(discussion),
        )
    unseen = int((votes == UNSEEN).sum())
    note = f"each of {votes.numel():,} pixels votes for the label that it adds most to"
    note += f"; {unseen:,} add nothing to any" if unseen else ""
    popular = [(row["name"], row["share"]) for row in table]
    files["votes.png"] = ballot(picture, labels, popular, title, note)
    files["votes.csv"] = _csv(table)
    return files


def _csv(table: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]))
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue().encode()


def _outline(args: Namespace, numbers: dict[str, Any]) -> str:
    lines = [
        f"{args.model} on {numbers['photo']}: {numbers['pixels']} pixels vote"
        + (f", {numbers['unseen']} of them add nothing to any label" if numbers["unseen"] else ""),
        "  votes    share     score  rank  label",
        *(
            f"{row['votes']:7d}  {percent(row['share']):>7}  {significant(row['score']):>8}  "
            f"{row['rank']:4d}  {row['name']}"
            for row in numbers["labels"][:10]
        ),
    ]
    if len(numbers["labels"]) > 10:
        lines.append(f"and {len(numbers['labels']) - 10} more, see {args.out / 'votes.csv'}")
    lines.append(f"pictures: {args.out}")
    return "\n".join(lines)


COMMAND = Command(
    name="votes",
    help="which label each pixel votes for",
    description="Back-projects every contribution to every score to the picture's pixels and lets\n"
    "each pixel vote for the label that it adds most to: masked pictures, discussions,\n"
    "and a table of the labels' popularity.",
    examples="""examples:
  linscope votes --image imagenet_03_990
  linscope votes --model efficientnet_lite0 --image holiday.jpg --labels 6
  linscope votes --size 96 --json > votes.json""",
    options=system_options("squeezenet1_1", "imagenet_00_243", SCORES_SIZE)
    | SAVE
    | _OPTIONS
    | output_options("the popularity of every label", "linscope-votes"),
    run=_run,
    wants="scores",
)
