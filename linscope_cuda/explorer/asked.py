"""A question as it came from a page, its values checked where they are read."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from ..study.errors import BadInput
from .message import Message
from .subject import Subject

Told = Callable[[float, str], None]


class Stopped(Exception):
    """Whoever asked no longer waits for the answer."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A question, who is told of its progress, and whether it was stopped.

    Asked(Message({"kind": "home"}))
    """

    message: Message
    told: Told = lambda share, text: None
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def subject(self) -> Subject:
        return Subject.of(self.message.header.get("subject"))

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number from low to high; BadInput for anything else."""
        value = self.message.header.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise BadInput(f"{key} wants a whole number, {low} ... {high}, was given {value!r:.40}")
        return value

    def number(self, key: str, default: float | None = None) -> float | None:
        """A finite number; BadInput for anything else."""
        value = self.message.header.get(key)
        if value is None:
            return default
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise BadInput(f"{key} wants a number, was given {value!r:.40}")
        return float(value)

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """One of the words; BadInput for anything else."""
        value = self.message.header.get(key, choices[0])
        if value not in choices:
            raise BadInput(f"{key} wants one of {', '.join(choices)}, was given {value!r:.40}")
        return value

    def pixel(self) -> tuple[int, int]:
        """Row and column; BadInput for anything else."""
        value = self.message.header.get("pixel")
        match value:
            case [int(row), int(column)]:
                return row, column
        raise BadInput(f"pixel wants row and column, was given {value!r:.40}")

    def progress(self, share: float, text: str) -> None:
        """Tells how far it is; Stopped where nobody waits any more."""
        if self.stop.is_set():
            raise Stopped
        self.told(share, text)
