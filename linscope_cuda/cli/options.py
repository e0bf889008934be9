"""The options that commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from .. import zoo
from ..rules.policy import POLICIES
from ..study.framing import FITS, Crop
from ..study.photos import DEFAULT_SIZE, MOST_TRIPLETS, SIZES

Options = dict[tuple[str, ...], dict[str, Any]]

MODEL = "pixelshuffle4_x3"
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def pixel(text: str) -> tuple[int, int]:
    """ROW,COLUMN as --pixel is given."""
    try:
        row, column = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid pixel ROW,COLUMN value: {text!r}") from None
    return row, column


def crop(text: str) -> Crop:
    """LEFT,TOP,WIDTH,HEIGHT as --crop is given."""
    try:
        left, top, width, height = map(int, text.split(","))
    except ValueError:
        wanted = "LEFT,TOP,WIDTH,HEIGHT"
        raise argparse.ArgumentTypeError(f"invalid crop {wanted} value: {text!r}") from None
    return left, top, width, height


class _Chosen(argparse.Action):
    """Stores a value, and that it was given: a program is not frozen anew."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        namespace.chosen = option_string
        setattr(namespace, self.dest, values)


class _ChosenToo(_Chosen):
    """Likewise, beside those given before."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        before = getattr(namespace, self.dest) or []
        super().__call__(parser, namespace, [*before, values], option_string)


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
_FRAMING: Options = {
    ("--crop",): {
        "action": _Chosen,
        "type": crop,
        "metavar": "LEFT,TOP,WIDTH,HEIGHT",
        "help": "only this part of the photo, in its pixels",
    },
    ("--fit",): {
        "action": _Chosen,
        "choices": FITS,
        "help": "how the photo comes to the input's shape: cut, the centred square; stretch, all "
        "of it; whole, all of it in its own proportions, with --size its shorter side (default: "
        "cut, or for scores what the network's own preprocessing does)",
    },
}
DEVICE: Options = {
    ("--device",): {
        "default": "cpu",
        "help": "cpu, cuda or cuda:1 (default: %(default)s)",
    }
}
DTYPE: Options = {
    ("--dtype",): {
        "action": _Chosen,
        "choices": DTYPES,
        "default": "float32",
        "help": "float32 or float64 (default: %(default)s)",
    }
}


SAVE: Options = {
    ("--save",): {
        "type": Path,
        "metavar": "FILE",
        "help": "also write the frozen network to a file, which --program takes",
    }
}
PROGRAM: Options = {
    ("--program",): {
        "type": Path,
        "metavar": "FILE",
        "help": "a frozen network that --save or op.save wrote, in place of a network and a photo",
    }
}


def json_option(what: str) -> Options:
    """--json, which prints `what` as JSON."""
    return {("--json",): {"action": "store_true", "help": f"print {what} as JSON"}}


def system_options(
    model: str = MODEL,
    image: str | None = "cat",
    size: int = DEFAULT_SIZE,
    several: bool = False,
    framed: bool = True,
) -> Options:
    """Which network is frozen, on which photo, how, where and in which dtype, with their defaults;
    `several` lets networks and policies be given more than once, `image` None leaves --image out,
    and `framed` False what it is that becomes the input.
    """
    known = (
        f"a network of the zoo: {', '.join(zoo.names())}; or torchvision/NAME, timm/NAME, "
        "a file of weights (.pt, .pth, .safetensors ...), package.module:function"
    )
    options: Options = {("--model",): {"metavar": "NAME"} | _one_or_more(known, model, several)}
    if image is not None:
        options[("--image",)] = {
            "action": _Chosen,
            "default": image,
            "metavar": "FILE|NAME",
            "help": "an image file, or a photo of the zoo such as cat, astronaut, imagenet_00_243 "
            "(default: %(default)s)",
        }
        options |= _FRAMING if framed else {}
    options[("--size",)] = {
        "action": _Chosen,
        "type": int,
        "metavar": "N",
        "help": f"side of the input in pixels, {SIZES[0]} ... {SIZES[1]} (default: what the "
        f"network wants; {size} for one that takes any size)",
    }
    frozen = _one_or_more("how nonlinear functions are frozen", "paper", several)
    options[("--policy",)] = {"choices": POLICIES} | frozen
    return options | DEVICE | DTYPE


def output_options(what: str, folder: str) -> Options:
    """The folder that is written to, and `what` --json prints."""
    out = {
        "default": Path(folder),
        "type": Path,
        "metavar": "DIR",
        "help": "the folder to write to (default: %(default)s)",
    }
    return {("--out",): out} | json_option(what)


def _one_or_more(what: str, default: str, several: bool) -> dict[str, Any]:
    if not several:
        return {"action": _Chosen, "default": default, "help": f"{what} (default: {default})"}
    return {"action": _ChosenToo, "help": f"{what} (default: {default}); again for a second one"}
