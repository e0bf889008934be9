"""What every command of the line has: its words, its options, and the inputs that many share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from .. import zoo
from ..report import BadInput
from ..report.info import cuda_problem

Options = dict[tuple[str, ...], dict[str, Any]]

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Command:
    """One command: what --help says of it, its options by their flags, and what it runs.

    `run` returns the exit code, None for 0; BadInput is told to the user in one sentence.
    """

    name: str
    help: str
    description: str
    examples: str
    options: Options
    run: Callable[[argparse.Namespace], int | None]


DEVICE: Options = {
    ("--device",): {"default": "cpu", "help": "cpu, cuda or cuda:1 (default: %(default)s)"}
}
DTYPE: Options = {
    ("--dtype",): {
        "choices": DTYPES,
        "default": "float32",
        "help": "float32 or float64 (default: %(default)s)",
    }
}


def json_option(what: str) -> Options:
    """--json, which prints `what` as JSON."""
    return {("--json",): {"action": "store_true", "help": f"print {what} as JSON"}}


def model_option(default: str) -> Options:
    """--model, for `load_network`."""
    return {
        ("--model",): {
            "default": default,
            "metavar": "NAME",
            "help": f"a network of the zoo: {', '.join(zoo.names())}; or torchvision/NAME, a file "
            "of weights (.pt, .pth, .safetensors), package.module:function (default: %(default)s)",
        }
    }


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
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None)
        raise BadInput(f"cannot read {name!r}: {reason}" if reason else str(error)) from error


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


@contextmanager
def progress_bar() -> Iterator[Callable[[float, str], None]]:
    """A bar on stderr for what takes longer than two seconds; told the share done, and of what."""
    form = "{desc} |{bar:20}| {elapsed}"
    with tqdm(total=100, delay=2, miniters=0, leave=False, bar_format=form) as bar:

        def progress(share: float, text: str) -> None:
            bar.set_description_str(text, refresh=False)
            bar.update(max(round(100 * share) - bar.n, 0))

        yield progress
