"""`linscope explore`: touch a pixel of a frozen network and see what it does, in the browser."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlencode

import torch

from ..explorer import server, static
from ..explorer.library import Library
from ..explorer.session import Session
from ..explorer.subject import Subject
from ..explorer.toured import toured
from ..report import BadInput
from ..report.writing import require_writable
from ..study.errors import require_between
from .command import Command
from .options import MODEL, Options, system_options
from .request import Request

_OPTIONS: Options = {
    ("--port",): {
        "type": int,
        "default": 0,
        "metavar": "PORT",
        "help": "the port to listen on (default: a free one)",
    },
    ("--host",): {
        "default": server.LOOPBACK,
        "metavar": "ADDRESS",
        "help": "the address to listen on; another one than this machine's own lets others that "
        "know the token ask (default: %(default)s)",
    },
    ("--no-browser",): {"action": "store_true", "help": "only print the address"},
    ("--tour",): {
        "action": "store_true",
        "help": "also make the page of linscope tour, in which each picture leads to where the "
        "explorer shows the same",
    },
    ("--static",): {
        "type": Path,
        "nargs": "?",
        "const": Path("linscope-explore.html"),
        "metavar": "FILE",
        "help": "write one file that answers every pixel without a server, of a network whose "
        "fields are small (default: %(const)s)",
    },
}


def _run(request: Request) -> None:
    args = request.args
    models = list(dict.fromkeys(args.model or [MODEL]))
    policies = list(dict.fromkeys(args.policy or ["paper"]))
    start = Subject(models[0], args.image, policies[0], request.size)
    library = Library(models, [args.image], request.device, request.dtype)
    if not args.static:
        require_between("--port", args.port, 0, 65535)
        library.photo(args.image)  # said here rather than on the page
    elif args.tour:
        raise BadInput("--tour is a page beside the explorer's server, and --static has none")
    with _a_core_left_to_the_browser():
        if args.static:
            _write(request, library, start)
        else:
            _serve(request, library, start, {"model": models, "policy": policies})


def _serve(
    request: Request, library: Library, start: Subject, chosen: dict[str, list[str]]
) -> None:
    args = request.args
    second = {}
    if any(len(names) > 1 for names in chosen.values()):
        second = {f"{kind}2": names[-1] for kind, names in chosen.items()} | {"view": "compare"}
    tour = ""
    if args.tour:
        with request.working() as progress:
            tour = toured(library, start, progress)

    def ready(address: str) -> None:
        pages = [f"{address}#{urlencode(start.address | second)}"]
        pages += [address + server.TOUR] if tour else []
        said = [*pages, "Ctrl-C ends it"]
        print(*(f"linscope: {line}" for line in said), sep="\n", file=sys.stderr, flush=True)
        if not args.no_browser:
            webbrowser.open(pages[-1])

    try:
        server.serve(Session(library), ready, args.host, args.port, tour=tour)
    except KeyboardInterrupt:
        if any(thread.daemon for thread in threading.enumerate()):
            _leave()
        raise


def _leave() -> NoReturn:
    """At once: a freeze under way knows no stop, and must not outlive the interpreter."""
    print("linscope: interrupted", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(130)


@contextmanager
def _a_core_left_to_the_browser() -> Iterator[None]:
    """Threads that wait for each other are slow where others compute, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, (os.cpu_count() or 2) - 1)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _write(request: Request, library: Library, start: Subject) -> None:
    file = request.args.static
    require_writable(file.parent)
    with request.working() as progress:
        size = static.write(library.looked(start), start, file, progress)
    print(f"page: {file}, {size / 1e6:.1f} MB")


COMMAND = Command(
    name="explore",
    help="touch a pixel and see what it does, in the browser",
    description="Serves a page on this machine where pointing at a pixel shows its field, labels\n"
    "show what adds to their scores, and singular vectors move the photo; opens the browser.\n"
    "Wants the extra: pip install 'linscope_cuda[explore]'.",
    examples="""examples:
  linscope explore
  linscope explore --model upconv7_photo --image holiday.jpg --size 128
  linscope explore --model squeezenet1_1 --image imagenet_00_243
  linscope explore --model cyclegan_vintage --policy paper --policy taylor --size 128
  linscope explore --tour
  linscope explore --static cat.html""",
    options=system_options(several=True, framed=False) | _OPTIONS,
    run=_run,
)
