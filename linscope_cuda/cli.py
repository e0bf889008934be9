"""`linscope`: a tour of a network as a page of pictures, what is installed, whether it works."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from tqdm import tqdm

from . import __version__, zoo
from . import selftest as selftests
from .report import BadInput, Tour, explore, files, publish, require_writable, summary
from .report.info import cuda_problem, info, report, weights_of
from .report.tour import DEFAULT_SIZE, MOST_TRIPLETS, SIZES
from .report.writing import PAGE

DTYPES = {"float32": torch.float32, "float64": torch.float64}

_MAIN_EXAMPLES = """examples:
  linscope tour                            the bundled network on a cat, in ./linscope-tour
  linscope tour --model squeezenet1_1      a classifier (its weights are fetched once)
  linscope info                            versions, CUDA, networks
  linscope selftest --device cuda          are the operators right on this GPU?

linscope COMMAND --help says more."""

_TOUR_EXAMPLES = """examples:
  linscope tour
  linscope tour --image holiday.jpg --size 64 -k 4 --out holiday
  linscope tour --model squeezenet1_1 --image imagenet_03_990 --dtype float64
  linscope tour --pixel 20 14 --json > numbers.json"""

_INFO_EXAMPLES = """examples:
  linscope info
  linscope info --json"""

_SELFTEST_EXAMPLES = """examples:
  linscope selftest
  linscope selftest --device cuda:1 --json"""

_DEVICE: dict[str, Any] = {
    "default": "cpu",
    "help": "cpu, cuda or cuda:1 (default: %(default)s)",
}

_TOUR_OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--model",): {
        "default": "pixelshuffle4_x3",
        "metavar": "NAME",
        "help": f"a network of the zoo: {', '.join(zoo.names())} (default: %(default)s)",
    },
    ("--image",): {
        "default": "cat",
        "metavar": "FILE|NAME",
        "help": "an image file, or a photo of the zoo such as cat, astronaut, imagenet_00_243 "
        "(default: %(default)s)",
    },
    ("--out",): {
        "default": Path("linscope-tour"),
        "type": Path,
        "metavar": "DIR",
        "help": "the folder to write to (default: %(default)s)",
    },
    ("--size",): {
        "type": int,
        "metavar": "N",
        "help": f"side of the input in pixels, {SIZES[0]} ... {SIZES[1]} (default: what the "
        f"network wants, or {DEFAULT_SIZE})",
    },
    ("-k",): {
        "type": int,
        "default": 6,
        "metavar": "K",
        "help": f"singular triplets, 1 ... {MOST_TRIPLETS} (default: %(default)s)",
    },
    ("--pixel",): {
        "type": int,
        "nargs": 2,
        "metavar": ("ROW", "COLUMN"),
        "help": "the input pixel to probe (default: a detailed one, or the one that weighs most "
        "in the best score)",
    },
    ("--device",): _DEVICE,
    ("--dtype",): {
        "choices": DTYPES,
        "default": "float32",
        "help": "float32 or float64 (default: %(default)s)",
    },
    ("--json",): {"action": "store_true", "help": "print the page's numbers as JSON"},
}
_INFO_OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--json",): {"action": "store_true", "help": "print the facts as JSON"},
}
_SELFTEST_OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--device",): _DEVICE,
    ("--json",): {"action": "store_true", "help": "print the checks as JSON"},
}


class _Parser(argparse.ArgumentParser):
    """Complains in one sentence, without the usage lines."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help shows examples\n")


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="linscope",
        description="Shows a neural network as the linear system it is for one input, "
        "y = F(x0) x + r(x0).",
        epilog=_MAIN_EXAMPLES,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=f"linscope {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    tour = commands.add_parser(
        "tour",
        help="write a page about one network and one photo",
        description=f"Freezes a network on a photo and writes pictures and one page, {PAGE}, that\n"
        "needs nothing else: the equation, a row and a column of F, its singular triplets.",
        epilog=_TOUR_EXAMPLES,
        formatter_class=raw,
    )
    about = commands.add_parser(
        "info",
        help="versions, the build, CUDA, networks",
        description="Shows versions, how the operators were built, whether CUDA can be used now,\n"
        "and where the networks' weights are.",
        epilog=_INFO_EXAMPLES,
        formatter_class=raw,
    )
    check = commands.add_parser(
        "selftest",
        help="check every operator and one network on a device",
        description="Compares every operator with its specification in plain torch, and checks\n"
        "the equations of one network; exits with 1 if anything is wrong.",
        epilog=_SELFTEST_EXAMPLES,
        formatter_class=raw,
    )
    for command, run, options in (
        (tour, _tour, _TOUR_OPTIONS),
        (about, _info, _INFO_OPTIONS),
        (check, _selftest, _SELFTEST_OPTIONS),
    ):
        command.set_defaults(run=run)
        for flags, option in options.items():
            command.add_argument(*flags, **option)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `linscope` and returns its exit code: 0, 1 for a selftest that found something wrong, 2
    for bad input, 130 for Ctrl-C.

    main(["tour", "--size", "32"])
    """
    args = _parser().parse_args(argv)
    try:
        return args.run(args) or 0
    except BadInput as error:
        print(f"linscope: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("linscope: interrupted", file=sys.stderr)
        return 130


def _info(args: argparse.Namespace) -> None:
    facts = info()
    print(json.dumps(facts, indent=2) if args.json else report(facts))


def _selftest(args: argparse.Namespace) -> int:
    _check_device(args.device)
    checks = selftests.selftest(args.device)
    facts = selftests.facts(checks, args.device)
    print(json.dumps(facts, indent=2) if args.json else selftests.report(checks, args.device))
    return 0 if facts["ok"] else 1


def _tour(args: argparse.Namespace) -> None:
    _check_device(args.device)
    require_writable(args.out)
    photo = _photo(args.image)
    network = _network(args.model)
    with _progress() as progress:
        try:
            found = explore(
                network,
                photo.image,
                network_name=args.model,
                photo_name=photo.name,
                size=args.size,
                k=args.k,
                pixel=tuple(args.pixel) if args.pixel else None,
                device=args.device,
                dtype=DTYPES[args.dtype],
                progress=progress,
            )
        except torch.OutOfMemoryError as error:
            raise BadInput(f"{args.device} has too little memory; try a smaller --size") from error
        drawn = files(found, lambda name: progress(0.8, f"drawing {name}"))
    publish(args.out, drawn)
    numbers = summary(found) | {"page": str(args.out / PAGE), "files": sorted(drawn)}
    print(json.dumps(numbers, indent=2) if args.json else _outline(found, args.out / PAGE))


def _network(name: str) -> zoo.Network:
    if name not in zoo.names():
        raise BadInput(f"there is no network {name!r}; the zoo has {', '.join(zoo.names())}")
    if weights_of(name) == "not fetched yet":
        print(f"linscope: fetching the weights of {name}, this once", file=sys.stderr)
    try:
        return zoo.load(name)
    except zoo.FetchError as error:
        raise BadInput(f"{name} has no weights yet: {error}") from error


def _photo(name: str) -> zoo.Photo:
    try:
        return zoo.photo(name)
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None)
        raise BadInput(f"cannot read {name!r}: {reason}" if reason else str(error)) from error


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInput(f"there is no device {name!r}; cpu, cuda or cuda:1 are such") from error
    if device.type not in ("cpu", "cuda"):
        raise BadInput(f"the operators run on cpu and cuda, not on {name!r}")
    problem = cuda_problem(name) if device.type == "cuda" else None
    if problem:
        raise BadInput(f"{name} cannot be used: {problem}")


def _outline(tour: Tour, page: Path) -> str:
    N, n = tour.shape
    sigmas = zip(tour.svd.S.tolist(), tour.svd.errors.tolist(), strict=True)
    lines = [
        f"{tour.network} on {tour.photo}: F is {N} x {n}",
        f"|y - F x0 - r| / |y| = {tour.relative_error:.1e}",
        f"|r| / |y| = {tour.residual_ratio:.4f}",
        *(f"{s.score:8.3f}  {s.name}  (F x0 {s.filter:.3f}, r {s.residual:.3f})" for s in tour.top),
        "sigma: " + ", ".join(f"{sigma:.5g} +- {error:.1g}" for sigma, error in sigmas),
        f"{tour.passes} passes, {tour.seconds:.1f} s",
        f"page: {page}",
    ]
    return "\n".join(lines)


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar on stderr for what takes longer than two seconds."""
    form = "{desc} |{bar:20}| {elapsed}"
    with tqdm(total=100, delay=2, miniters=0, leave=False, bar_format=form) as bar:

        def progress(share: float, text: str) -> None:
            bar.set_description_str(text, refresh=False)
            bar.update(max(round(100 * share) - bar.n, 0))

        yield progress
