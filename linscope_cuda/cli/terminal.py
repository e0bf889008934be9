"""What a command says on the terminal besides its results."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from ..progress import bar
from ..report import BadInput
from ..study.photos import out_of_memory

Progress = Callable[[float, str], None]

CLOSED = 128 + 13  # as shells count what SIGPIPE ended


@contextmanager
def enough_memory(device: str) -> Iterator[None]:
    """BadInput in place of what torch says when a device is full.

    with enough_memory("cuda"): ...
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise BadInput(f"{device} has too little memory; try a smaller --size") from error


def say(text: str) -> None:
    """A sentence on stderr, above the progress bar if there is one."""
    tqdm.write(f"linscope: {' '.join(text.split())}", file=sys.stderr)


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


@contextmanager
def notes(quiet: bool) -> Iterator[None]:
    """The package's log on stderr, a sentence for each; `quiet`: nowhere.

    with notes(quiet=False): logging.getLogger("linscope_cuda").info("left out: a.png")
    """
    log = logging.getLogger("linscope_cuda")
    handler = logging.NullHandler() if quiet else _Notes()
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress]:
    """A bar on a terminal for what takes over two seconds; told the share done, and of what.
    KeyboardInterrupt says how far it came.
    """
    form = "{desc} |{bar:20}| {elapsed}"
    seen = False if quiet else None
    at = ""
    with bar(seen, total=100, miniters=0, leave=False, bar_format=form) as shown:

        def progress(share: float, text: str) -> None:
            nonlocal at
            at = f"{share:.0%}, {text}"
            shown.set_description_str(text, refresh=False)
            shown.update(max(round(100 * share) - shown.n, 0))

        try:
            yield progress
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(str(stop) or at) from None


def leave_unread() -> None:
    """Leads stdout and stderr, which nobody reads any more, nowhere: the end of the process finds
    nothing to complain of.
    """
    with open(os.devnull, "w") as nowhere:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            os.dup2(nowhere.fileno(), stream.fileno())


def with_bars(sigma: list[float], error: list[float], proven: list[bool]) -> str:
    """Singular values with their error bars, as text; "est." marks those that are estimates."""
    values = zip(sigma, error, proven, strict=True)
    text = ", ".join(f"{s:.5g} +- {e:.1g}{'' if sure else ' est.'}" for s, e, sure in values)
    return text if all(proven) else f"{text} (est.: right unless a value hid from the search)"
