"""What the commands share that look at frozen systems: which networks, by which policies."""

from __future__ import annotations

import argparse
from typing import Any

from ..study.system import System, frozen
from .command import (
    DEVICE,
    DTYPE,
    DTYPES,
    Options,
    image_option,
    json_option,
    load_network,
    load_photo,
    model_option,
    policy_option,
    size_option,
)

MODEL = "pixelshuffle4_x3"


def system_options(several: bool) -> Options:
    """Options that say which systems are looked at: `several`, or one.

    system_options(several=True)
    """
    which = (
        model_option(MODEL, several) | image_option("cat") | size_option() | policy_option(several)
    )
    return which | DEVICE | DTYPE | json_option("the numbers")


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
