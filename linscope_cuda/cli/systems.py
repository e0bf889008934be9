"""What the commands share that look at frozen systems: which networks, by which policies."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..policy import POLICIES
from ..report import BadInput
from ..report.system import System, frozen
from ..report.tour import DEFAULT_SIZE, SIZES
from .command import (
    DEVICE,
    DTYPE,
    DTYPES,
    Options,
    json_option,
    load_network,
    load_photo,
    model_option,
)

MODEL = "pixelshuffle4_x3"


def system_options(several: bool) -> Options:
    """Options that say which systems are looked at: `several`, or one.

    system_options(several=True)
    """
    again: dict[str, Any] = {"action": "append"} if several else {}
    more = "; again for a second one" if several else ""
    model = model_option(MODEL)
    if several:
        model[("--model",)] |= {**again, "default": None}
        model[("--model",)]["help"] = str(model[("--model",)]["help"]).replace(
            "%(default)s)", f"{MODEL}){more}"
        )
    rest: Options = {
        ("--policy",): {
            **again,
            "choices": POLICIES,
            "help": f"how nonlinear functions are frozen (default: paper){more}",
        },
        ("--image",): {
            "default": "cat",
            "metavar": "FILE|NAME",
            "help": "an image file, or a photo of the zoo such as cat, astronaut, imagenet_00_243 "
            "(default: %(default)s)",
        },
        ("--size",): {
            "type": int,
            "metavar": "N",
            "help": f"side of the input in pixels, {SIZES[0]} ... {SIZES[1]} (default: what the "
            f"network wants, or {DEFAULT_SIZE})",
        },
    }
    return model | rest | DEVICE | DTYPE | json_option("the numbers")


REACH: Options = {
    ("--share",): {
        "type": float,
        "default": 0.9,
        "metavar": "S",
        "help": "the share of the energy that the radius holds (default: %(default)s)",
    },
    ("--within",): {
        "type": float,
        "metavar": "PIXELS",
        "help": "further away, in pixels of the input, is away from the diagonal (default: an "
        "eighth of the input's shorter side)",
    },
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


def systems(args: argparse.Namespace, progress: Any) -> list[System]:
    """The systems that the options name: each network by each policy. BadInput as `frozen` says.

    systems(args, lambda share, text: None)
    """
    photo = load_photo(args.image)
    networks = {name: load_network(name) for name in _listed(args.model, MODEL)}
    policies = list(dict.fromkeys(_listed(args.policy, "paper")))
    found = []
    for model, network in networks.items():
        for policy in policies:
            name = model if policies == ["paper"] else f"{model}, {policy}"
            progress(0.0, f"freezing {name}")
            dtype = DTYPES[args.dtype]
            found.append(frozen(network, photo.image, name, policy, args.size, args.device, dtype))
    return found


def _listed(option: str | list[str] | None, default: str) -> list[str]:
    return [option] if isinstance(option, str) else option or [default]


@contextmanager
def enough_memory(device: str) -> Iterator[None]:
    """BadInput in place of what torch says when a device is full.

    with enough_memory("cuda"): ...
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BadInput(f"{device} has too little memory; try a smaller --size") from error
