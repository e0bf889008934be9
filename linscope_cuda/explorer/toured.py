"""The tour's page beside the explorer: each picture leads to where the explorer shows the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from urllib.parse import urlencode

from ..report import Tour, explore, gallery, page
from ..study.named import load_network
from ..study.system import EITHER
from .library import Library
from .subject import Subject

TRIPLETS = 6

Progress = Callable[[float, str], object]
Seen = dict[str, object]  # what an address says


def toured(
    library: Library, subject: Subject, progress: Progress = lambda share, text: None
) -> str:
    """The page of a tour of the system that `library` shows, whose links are relative to the
    explorer's own address.

    toured(library, Subject("pixelshuffle4_x3", "cat"))
    """
    found = explore(
        load_network(subject.model),
        subject.cut(library.photo(subject.photo)),
        network_name=subject.model,
        photo_name=subject.photo,
        size=subject.size,
        k=min(TRIPLETS, *library.looked(subject).op.shape),
        policy=subject.policy,
        device=library.device,
        dtype=library.dtype,
        progress=progress,
        fit=EITHER.fit,
    )
    where = links(found, subject)
    drawn = (
        dataclasses.replace(picture, link=where.get(picture.name, "")) for picture in gallery(found)
    )
    return page(found, list(drawn))


def links(tour: Tour, subject: Subject) -> dict[str, str]:
    """By the name of a picture, the address that shows the same.

    links(found, subject)["row"]
    """
    k = len(tour.svd.S)
    seen: dict[str, Seen] = {"sigma": {}, "places": {}}
    for i in range(k):
        seen |= {f"triplet-{i + 1}-{end}": {"triplet": i} for end in ("input", "output")}
    seen = {name: {"view": "spectrum", "k": k, **said} for name, said in seen.items()}
    seen |= {name: {"view": "photo"} for name in ("input", "filtered", "residual", "parts")}
    seen |= (_labels if tour.is_classifier else _pixels)(tour)
    return {name: f"./#{urlencode({**subject.address, **said})}" for name, said in seen.items()}


def _pixels(tour: Tour) -> dict[str, Seen]:
    def field(at: str, probe: tuple[int, ...]) -> Seen:
        channel, i, j = probe
        return {"view": "pixel", "at": at, "pixel": f"{i},{j}", "channel": channel}

    row, column = field("output", tour.row.probe), field("input", tour.column.probe)
    shown = dict.fromkeys(["output", "probe-output", "row", "row-close", "row-photo"], row)
    shown |= dict.fromkeys(["probe-input", "column", "column-close"], column)
    return shown


def _labels(tour: Tour) -> dict[str, Seen]:
    channel, i, j = tour.column.probe
    row: Seen = {"view": "labels", "label": tour.top[0].index, "show": "row"}
    row |= {"at": "input", "pixel": f"{i},{j}", "channel": channel}
    return dict.fromkeys(["scores", "row", "row-photo", "probe-input", "column"], row)
