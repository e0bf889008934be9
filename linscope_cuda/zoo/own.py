"""A user's own network: "package.module:function" is imported and called."""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from torch import nn

from .network import Network
from .preprocess import Preprocess


def load(name: str) -> Network:
    """What "package.module:function" returns, called without arguments, in eval mode.

    The function returns an nn.Module, whose input is then RGB in [0, 1], or a `Network`, which
    says itself what its input is. The working folder is searched too. ValueError when the module
    cannot be imported, or the function is not there, fails, or returns anything else.

    >>> load("torchvision.models:resnet18").preprocess  # doctest: +SKIP
    Preprocess: RGB in [0, 1], at the picture's own size
    """
    module_name, _, function_name = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), function_name]):
        raise ValueError(f"{name!r} is not of the form package.module:function")
    function = getattr(_imported(module_name, name), function_name, None)
    if not callable(function):
        found = "nothing of that name" if function is None else type(function).__name__
        raise ValueError(f"{name!r} wants a function {function_name}, and there is {found}")
    try:
        made = function()
    except Exception as error:
        raise ValueError(f"{name!r} failed when it was called: {_sentence(error)}") from error
    if isinstance(made, Network):
        made.model.eval()
        return made
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"{name!r} returned {type(made).__name__}, and a torch.nn.Module or a zoo Network is "
            "wanted"
        )
    return Network(made.eval(), Preprocess(divisor=255), None, f"{name}, the user's own.")


def _imported(module_name: str, name: str) -> ModuleType:
    try:
        with _working_folder_searched():
            return importlib.import_module(module_name)
    except Exception as error:
        raise ValueError(
            f"{module_name!r} could not be imported for {name!r}: {_sentence(error)}"
        ) from error


@contextmanager
def _working_folder_searched() -> Iterator[None]:
    """Last of all, so that a file there cannot take the place of an installed package."""
    folder = os.getcwd()
    sys.path.append(folder)
    try:
        yield
    finally:
        # From the end: the user may have the same folder further up.
        del sys.path[len(sys.path) - 1 - sys.path[::-1].index(folder)]


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
