"""`linscope`: a network as the linear system it is, as pictures, pages and tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from ..ctrl_c import INTERRUPTED, imported
from ..report import BadInput
from . import (
    certify,
    controls,
    explore,
    fields,
    info,
    ledger,
    region,
    selftest,
    svd,
    sweep,
    tour,
    votes,
)
from .options import Options
from .request import Request
from .terminal import CLOSED, leave_unread, notes, say

COMMANDS = tuple(
    module.COMMAND
    for module in (
        *(tour, explore, ledger, votes, controls, fields, sweep, svd, region),
        *(certify, selftest, info),
    )
)

_EXAMPLES = """examples:
  linscope tour                            the bundled network on a cat, in ./linscope-tour
  linscope tour --model squeezenet1_1      a classifier (its weights are fetched once)
  linscope explore                         touch a pixel and see what it does, in the browser
  linscope ledger --photos imagenet20      what makes a classifier's scores
  linscope votes --image imagenet_00_243   which label each pixel votes for
  linscope controls                        what are such explanations worth?
  linscope fields --pixel 20,14            what a pixel uses, and what it affects
  linscope sweep --size 16                 every row of F, in a store on disk
  linscope svd -k 4 --compare              singular triplets, by three methods
  linscope region                          how far from the photo does all that hold?
  linscope certify                         is the frozen network linear, and right?
  linscope selftest --device cuda          are the operators right on this GPU?
  linscope info                            versions, CUDA, networks

linscope COMMAND --help says more."""

_QUIET: Options = {
    ("-q", "--quiet"): {
        "action": "store_true",
        "help": "no progress and no notes: the results alone, and what went wrong",
    }
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
        epilog=_EXAMPLES,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=f"linscope {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for command in COMMANDS:
        added = commands.add_parser(
            command.name,
            help=command.help,
            description=command.description,
            epilog=command.examples,
            formatter_class=raw,
        )
        added.set_defaults(run=command.run, wants=command.wants)
        for flags, option in (command.options | _QUIET).items():
            added.add_argument(*flags, **option)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `linscope` and returns its exit code: 0, 1 where certify or selftest found something
    wrong, 2 for bad input, 130 for Ctrl-C, 141 where nobody reads on.

    main(["tour", "--size", "32"])
    """
    imported()
    try:
        try:
            words = sys.argv[1:] if argv is None else list(argv)
            return _run(_parser().parse_args(words, argparse.Namespace(words=words)))
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here rather than at the end, where nobody could catch
    except BrokenPipeError:
        leave_unread()
        return CLOSED


def _run(args: argparse.Namespace) -> int:
    try:
        with notes(args.quiet):
            return args.run(Request(args)) or 0
    except BadInput as error:
        print(f"linscope: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        said = f"stopped: {stop}" if str(stop) else "interrupted"
        said += f"; nothing was written to {args.out}" if "out" in args else ""
        say(said)
        return INTERRUPTED
