"""What a command of the line is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .options import Options
from .request import Request


@dataclass(frozen=True)
class Command:
    """One command: what --help says of it, its options by their flags, and what it runs.

    `run` returns the exit code, None for 0; BadInput is told to the user in one sentence. `wants`
    is what its network must make, "picture" or "scores", if that matters.
    """

    name: str
    help: str
    description: str
    examples: str
    options: Options
    run: Callable[[Request], int | None]
    wants: str = ""
