"""The tour's page beside the explorer: each picture leads to where the explorer shows the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

from ..report import Tour, explore, gallery, page
from ..study.named import load_network
from ..study.system import EITHER
from .library import Library
from .subject import Subject

TRIPLETS = 6

Progress = Callable[[float, str], object]
Seen = Mapping[str, Mapping[str, object]]


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
    """By the name of a picture, the address that shows the same; a picture that the explorer does
    not have is left out.

    links(found, subject)["row"]
    """
    k = len(tour.svd.S)
    seen: dict[str, Mapping[str, object]] = {"sigma": {}, "places": {}}
    for i in range(k):
        seen |= {f"triplet-{i + 1}-{end}": {"triplet": i} for end in ("input", "output")}
    seen = {name: {"view": "spectrum", "k": k, **said} for name, said in seen.items()}
    seen |= (_labels if tour.is_classifier else _pixels)(tour)
    return {name: f"./#{urlencode({**subject.address, **said})}" for name, said in seen.items()}


def _pixels(tour: Tour) -> Seen:
    row, column = (
        {"view": "pixel", "at": at, "pixel": f"{i},{j}", "channel": channel}
        for at, (channel, i, j) in (("output", tour.row.probe), ("input", tour.column.probe))
    )
    rows, columns = ("output", "probe-output"), ("input", "probe-input")
    seen = dict.fromkeys((*rows, "row", "row-close"), row)
    seen |= dict.fromkeys((*columns, "column", "column-close"), column)
    return seen


def _labels(tour: Tour) -> Seen:
    best = {"view": "labels", "label": tour.top[0].index}
    discussion = best | {"show": "discussion"}
    return {"scores": discussion, "parts": discussion, "row": best | {"show": "row"}}
