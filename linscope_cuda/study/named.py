"""Networks and photos by name: BadInput, in one sentence, where one cannot be had."""

from __future__ import annotations

import logging

from .. import zoo
from ..zoo.trained import Trained
from .errors import BadInput

_LOG = logging.getLogger(__name__)


def load_network(name: str) -> zoo.Network:
    """Any network that `zoo.load` knows; BadInput if it cannot be had."""
    try:
        if zoo.weights_of(name) == "not fetched yet":
            _LOG.info("fetching the weights of %s, this once", name)
        return zoo.load(name)
    except zoo.FetchError as error:
        raise BadInput(f"{name} has no weights yet: {error}") from error
    except (ValueError, ImportError) as error:
        raise BadInput(str(error)) from error
    except OSError as error:
        raise BadInput(f"cannot read {name!r}: {error.strerror or error}") from error


def require_known(name: str, wants: str = "") -> Trained | None:
    """BadInput, before anything is fetched, for a name that nothing has, and for a network of the
    zoo that makes "scores" where a "picture" is wanted, or the other way round. What else is known
    of the zoo's networks is returned.

    require_known("hed", "scores")
    """
    try:
        zoo.weights_of(name)
        known = zoo.known(name)
    except (ValueError, ImportError) as error:
        raise BadInput(str(error)) from error
    makes = "scores" if known and known.names_classes else "picture"
    if known and wants and makes != wants:
        other = {"scores": "scores, and a network that makes a picture is wanted"}
        said = other.get(makes, "pictures and no scores, and a classifier is wanted")
        raise BadInput(f"{name} makes {said}")
    return known


def load_photo(name: str) -> zoo.Photo:
    """A photo of the zoo or a file; BadInput if there is none."""
    try:
        return zoo.photo(name)
    except MemoryError as error:
        raise BadInput(f"cannot read {name!r}: it does not fit into memory") from error
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None)
        raise BadInput(f"cannot read {name!r}: {reason}" if reason else str(error)) from error
