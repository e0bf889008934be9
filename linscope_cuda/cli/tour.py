"""`linscope tour`: one network on one photo, as a page of pictures."""

from __future__ import annotations

from pathlib import Path

from ..report import Tour, explore, files, publish, summary
from ..report.digits import significant
from ..report.writing import PAGE
from ..study.framing import cut
from .command import Command
from .options import PIXEL, TRIPLETS, output_options, system_options
from .request import Request
from .terminal import with_bars


def _run(request: Request) -> int | None:
    args, photo, network = request.args, request.photo, request.network
    with request.working() as progress:
        found = explore(
            network,
            photo.image,
            network_name=args.model,
            photo_name=photo.name,
            size=request.size,
            k=args.k,
            pixel=args.pixel,
            policy=args.policy,
            device=request.device,
            dtype=request.dtype,
            progress=progress,
            command=request.command,
            fit=request.fit(cut),
        )
        request.framing = found.framing
        progress(0.8, "drawing")
        drawn = files(found, lambda name: progress(0.8, f"drawing {name}"))
    publish(request.out, drawn)
    page = request.out / PAGE
    numbers = summary(found) | {"page": str(page), "files": sorted(drawn)}
    request.tell(numbers, lambda: _outline(found, page))
    if found.svd.interrupted:
        done = f"{len(found.svd.S)} of {found.svd.asked} triplets"
        return request.stopped(done, "the page has these")


def _outline(tour: Tour, page: Path) -> str:
    N, n = tour.shape
    found = tour.svd
    lines = [
        f"{tour.network} on {tour.photo}: F is {N} x {n}",
        f"|y - F x0 - r| / |y| = {tour.relative_error:.1e}",
        f"|r| / |y| = {significant(tour.residual_ratio)}{_advice(tour)}",
        *(
            f"{significant(s.score):>9}  {s.name}  (F x0 {significant(s.filter)}, "
            f"r {significant(s.residual)})"
            for s in tour.top
        ),
        f"sigma: {with_bars(found.S.tolist(), found.errors.tolist(), found.proven.tolist())}",
        f"{tour.passes} passes, {tour.seconds:.1f} s",
        f"page: {page}",
    ]
    return "\n".join(lines)


def _advice(tour: Tour) -> str:
    if not tour.advice:
        return ""
    ratio = significant(tour.advice.ratio)
    return f": F x0 and r cancel; with --policy {tour.advice.policy} it is {ratio}"


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
    options=system_options()
    | TRIPLETS
    | PIXEL
    | output_options("the page's numbers", "linscope-tour"),
    run=_run,
)
