"""What an option names, loaded or saved: BadInput, in one sentence, where it cannot be had."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from .. import zoo
from ..frozen.interpreter import LinearInterpreter
from ..frozen.program_file import FrozenProgram
from ..report import BadInput
from ..study.info import cuda_problem


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


def save(op: LinearInterpreter | FrozenProgram, path: Path) -> None:
    """`op.save(path)`; BadInput if it cannot be."""
    try:
        op.save(path)
    except ValueError as error:
        raise BadInput(f"{path} cannot be written: {error}") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror or error}") from error


def check_device(name: str) -> None:
    """BadInput unless the operators run there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInput(f"there is no device {name!r}; cpu, cuda or cuda:1 are such") from error
    if device.type not in ("cpu", "cuda"):
        raise BadInput(f"the operators run on cpu and cuda, not on {name!r}")
    problem = cuda_problem(name) if device.type == "cuda" else None
    if problem:
        raise BadInput(f"{name} cannot be used: {problem}")
