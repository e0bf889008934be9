"""What every command of the line has: its words, its options, and the inputs that many share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from .. import zoo
from ..report import BadInput
from ..rules.policy import POLICIES
from ..study.info import cuda_problem
from ..study.photos import DEFAULT_SIZE, MOST_TRIPLETS, SIZES, out_of_memory

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


def pixel(text: str) -> tuple[int, int]:
    """ROW,COLUMN as --pixel is given."""
    row, column = text.split(",")
    return int(row), int(column)


pixel.__name__ = "pixel ROW,COLUMN"  # as argparse's complaint names it

PIXEL: Options = {
    ("--pixel",): {
        "type": pixel,
        "metavar": "ROW,COLUMN",
        "help": "the probed pixel, from 0,0 (default: a detailed one, or the one that weighs most "
        "in the best score)",
    }
}
TRIPLETS: Options = {
    ("-k",): {
        "type": int,
        "default": 6,
        "metavar": "K",
        "help": f"singular triplets, 1 ... {MOST_TRIPLETS} (default: %(default)s)",
    }
}
DEVICE: Options = {
    ("--device",): {
        "default": "cpu",
        "help": "cpu, cuda or cuda:1 (default: %(default)s)",
    }
}
DTYPE: Options = {
    ("--dtype",): {
        "choices": DTYPES,
        "default": "float32",
        "help": "float32 or float64 (default: %(default)s)",
    }
}


def model_option(default: str, several: bool = False) -> Options:
    """--model, for `load_network`."""
    known = (
        f"a network of the zoo: {', '.join(zoo.names())}; or torchvision/NAME, a file of weights "
        "(.pt, .pth, .safetensors), package.module:function"
    )
    return {("--model",): {"metavar": "NAME"} | _one_or_more(known, default, several)}


def policy_option(several: bool = False) -> Options:
    """--policy, how nonlinear functions are frozen."""
    known = "how nonlinear functions are frozen"
    return {("--policy",): {"choices": POLICIES} | _one_or_more(known, "paper", several)}


def _one_or_more(what: str, default: str, several: bool) -> dict[str, Any]:
    if not several:
        return {"default": default, "help": f"{what} (default: {default})"}
    return {"action": "append", "help": f"{what} (default: {default}); again for a second one"}


def image_option(default: str) -> Options:
    """--image, for `load_photo`."""
    return {
        ("--image",): {
            "default": default,
            "metavar": "FILE|NAME",
            "help": "an image file, or a photo of the zoo such as cat, astronaut, imagenet_00_243 "
            "(default: %(default)s)",
        }
    }


def size_option(default: int = DEFAULT_SIZE) -> Options:
    """--size, for `fitted` and `resized`."""
    return {
        ("--size",): {
            "type": int,
            "metavar": "N",
            "help": f"side of the input in pixels, {SIZES[0]} ... {SIZES[1]} (default: what the "
            f"network wants; {default} for one that takes any size)",
        }
    }


def out_option(folder: str) -> Options:
    """--out, the folder to write to."""
    return {
        ("--out",): {
            "default": Path(folder),
            "type": Path,
            "metavar": "DIR",
            "help": "the folder to write to (default: %(default)s)",
        }
    }


def json_option(what: str) -> Options:
    """--json, which prints `what` as JSON."""
    return {("--json",): {"action": "store_true", "help": f"print {what} as JSON"}}


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
def progress_bar() -> Iterator[Callable[[float, str], None]]:
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
