"""Answers to questions about frozen networks: what a page can ask, whatever way it asks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .. import zoo
from ..rules.policy import POLICIES
from ..study.errors import BadInput
from ..study.photos import SIZES
from . import pixels, scores, spectrum
from .asked import Asked, Stopped
from .library import GIVEN, Given, Library
from .message import Message
from .pictures import picture
from .subject import Subject


def _home(asked: Asked, library: Library) -> Message:
    """What there is to choose from."""
    fixed = isinstance(library, Given)
    return Message(
        {
            "networks": library.models,
            "photos": library.photos,
            "policies": [] if fixed else list(POLICIES),
            "sizes": list(SIZES),
            "fixed": fixed,
        }
    )


def _photo(asked: Asked, library: Library) -> Message:
    """A photo as it is before a network takes it; one that is dropped gets a name."""
    header, arrays = asked.message.header, asked.message.arrays
    if isinstance(library, Given):
        library.photo(GIVEN)
    if "file" in arrays:
        file = str(header.get("name", "the picture"))[:80]
        image = picture(arrays["file"].tobytes(), file)
        name = library.add(image, file)
    else:
        name = header.get("photo")
        if not isinstance(name, str):
            raise BadInput(f"photo wants a name, was given {name!r:.40}")
        image = library.photo(name)
    shown = image.copy()
    shown.thumbnail((768, 768))
    size = {"photo": name, "width": image.width, "height": image.height}
    return Message(size, {"picture": np.asarray(shown.convert("RGB"))})


Answer = Callable[[Asked, Library], Message]

# What can be asked, by its kind; a newer question of a kind overtakes an older one of it.
ANSWERS: dict[str, Answer] = {
    "home": _home,
    "photo": _photo,
    "open": pixels.opened,
    "parts": pixels.parts,
    "field": pixels.field,
    "label": scores.label,
    "column": scores.column,
    "ledger": scores.ledger,
    "votes": scores.votes,
    "svd": spectrum.svd,
    "step": spectrum.step,
    "reach": spectrum.reach,
}


class Session:
    """Answers questions about the networks and photos of a library.

    Session(Library()).answer(Asked(Message({"kind": "home"}))).header["networks"]
    """

    def __init__(self, library: Library, start: Subject | None = None) -> None:
        self.library, self.start = library, start

    def answer(self, asked: Asked) -> Message:
        """The answer, or one with `error`, a sentence, or `dropped`, where nobody waits for it."""
        kind = asked.message.header.get("kind")
        try:
            if not isinstance(kind, str) or kind not in ANSWERS:
                raise BadInput(f"there is no question {kind!r:.40}")
            return ANSWERS[kind](asked, self.library)
        except Stopped:
            return Message({"dropped": True})
        except (BadInput, zoo.FetchError) as error:
            return Message({"error": " ".join(str(error).split())})
        except (RuntimeError, MemoryError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            return Message({"error": f"this could not be computed: {reason:.200}"})
