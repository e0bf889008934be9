"""What a command says on the terminal besides its results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from ..report import BadInput
from ..study.photos import out_of_memory

Progress = Callable[[float, str], None]


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


def warn(text: str) -> None:
    """A sentence on stderr, above the progress bar if there is one."""
    tqdm.write(f"linscope: {' '.join(text.split())}", file=sys.stderr)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on a terminal for what takes over two seconds; told the share done, and of what."""
    form = "{desc} |{bar:20}| {elapsed}"
    with tqdm(total=100, delay=2, miniters=0, leave=False, bar_format=form, disable=None) as bar:

        def progress(share: float, text: str) -> None:
            bar.set_description_str(text, refresh=False)
            bar.update(max(round(100 * share) - bar.n, 0))

        yield progress


def with_bars(sigma: list[float], error: list[float], proven: list[bool]) -> str:
    """Singular values with their error bars, as text; "est." marks those that are estimates."""
    values = zip(sigma, error, proven, strict=True)
    text = ", ".join(f"{s:.5g} +- {e:.1g}{'' if sure else ' est.'}" for s, e, sure in values)
    return text if all(proven) else f"{text} (est.: right unless a value hid from the search)"
