"""Where an option says to run or to save: BadInput, in one sentence, where that cannot be."""

from __future__ import annotations

from pathlib import Path

import torch

from ..frozen.interpreter import LinearInterpreter
from ..frozen.program_file import FrozenProgram
from ..report import BadInput
from ..study.info import cuda_problem


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
