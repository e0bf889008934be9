"""Networks and photos by name: BadInput, in one sentence, where one cannot be had."""

from __future__ import annotations

import sys

from .. import zoo
from .errors import BadInput


def load_network(name: str) -> zoo.Network:
    """Any network that `zoo.load` knows; BadInput if it cannot be had."""
    try:
        if zoo.weights_of(name) == "not fetched yet":
            print(f"linscope: fetching the weights of {name}, this once", file=sys.stderr)
        return zoo.load(name)
    except zoo.FetchError as error:
        raise BadInput(f"{name} has no weights yet: {error}") from error
    except (ValueError, ImportError) as error:
        raise BadInput(str(error)) from error
    except OSError as error:
        raise BadInput(f"cannot read {name!r}: {error.strerror or error}") from error


def load_photo(name: str) -> zoo.Photo:
    """A photo of the zoo or a file; BadInput if there is none."""
    try:
        return zoo.photo(name)
    except MemoryError as error:
        raise BadInput(f"cannot read {name!r}: it does not fit into memory") from error
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None)
        raise BadInput(f"cannot read {name!r}: {reason}" if reason else str(error)) from error
