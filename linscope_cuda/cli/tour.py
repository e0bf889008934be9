"""`linscope tour`: one network on one photo, as a page of pictures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..report import Tour, explore, files, publish, require_writable, summary
from ..report.writing import PAGE
from .command import (
    DEVICE,
    DTYPE,
    DTYPES,
    PIXEL,
    TRIPLETS,
    Command,
    check_device,
    enough_memory,
    image_option,
    json_option,
    load_network,
    load_photo,
    model_option,
    out_option,
    policy_option,
    progress_bar,
    size_option,
    with_bars,
)


def _run(args: argparse.Namespace) -> None:
    check_device(args.device)
    require_writable(args.out)
    photo = load_photo(args.image)
    network = load_network(args.model)
    with progress_bar() as progress, enough_memory(args.device):
        found = explore(
            network,
            photo.image,
            network_name=args.model,
            photo_name=photo.name,
            size=args.size,
            k=args.k,
            pixel=args.pixel,
            policy=args.policy,
            device=args.device,
            dtype=DTYPES[args.dtype],
            progress=progress,
        )
        drawn = files(found, lambda name: progress(0.8, f"drawing {name}"))
    publish(args.out, drawn)
    numbers = summary(found) | {"page": str(args.out / PAGE), "files": sorted(drawn)}
    print(json.dumps(numbers, indent=2) if args.json else _outline(found, args.out / PAGE))


def _outline(tour: Tour, page: Path) -> str:
    N, n = tour.shape
    found = tour.svd
    lines = [
        f"{tour.network} on {tour.photo}: F is {N} x {n}",
        f"|y - F x0 - r| / |y| = {tour.relative_error:.1e}",
        f"|r| / |y| = {tour.residual_ratio:.4f}",
        *(f"{s.score:8.3f}  {s.name}  (F x0 {s.filter:.3f}, r {s.residual:.3f})" for s in tour.top),
        f"sigma: {with_bars(found.S.tolist(), found.errors.tolist(), found.proven.tolist())}",
        f"{tour.passes} passes, {tour.seconds:.1f} s",
        f"page: {page}",
    ]
    return "\n".join(lines)


COMMAND = Command(
    name="tour",
    help="write a page about one network and one photo",
    description=f"Freezes a network on a photo and writes pictures and one page, {PAGE}, that\n"
    "needs nothing else: the equation, a row and a column of F, its singular triplets.",
    examples="""examples:
  linscope tour
  linscope tour --image holiday.jpg --size 64 -k 4 --out holiday
  linscope tour --model squeezenet1_1 --image imagenet_03_990 --dtype float64
  linscope tour --pixel 20,14 --json > numbers.json""",
    options=model_option("pixelshuffle4_x3")
    | image_option("cat")
    | size_option()
    | policy_option()
    | TRIPLETS
    | PIXEL
    | DEVICE
    | DTYPE
    | out_option("linscope-tour")
    | json_option("the page's numbers"),
    run=_run,
)
