"""What one call of a command asks for: the options that commands share, and what they name."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from .. import zoo
from ..report import BadInput, require_writable
from ..rules.policy import POLICIES
from ..study.named import load_network, load_photo
from ..study.photos import DEFAULT_SIZE, MOST_TRIPLETS, SIZES, require_size, require_triplets
from ..study.system import PICTURES, Kind, System, frozen, loaded
from .inputs import check_device, save
from .terminal import Progress, enough_memory, progress_bar

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
) -> Options:
    """Which network is frozen, on which photo, how, where and in which dtype, with their defaults;
    `several` lets networks and policies be given more than once, `image` None leaves --image out.
    """
    known = (
        f"a network of the zoo: {', '.join(zoo.names())}; or torchvision/NAME, timm/NAME, "
        "a file of weights "
        "(.pt, .pth, .safetensors ...), package.module:function"
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


class Request:
    """One call of a command, from what was parsed: BadInput, before any work, for an option out of
    range. Options of the command alone are in `args`. What is named by an option is loaded when it
    is first asked for; BadInput if it cannot be had.

    with request.working() as progress: systems = request.systems(progress)
    """

    def __init__(self, args: argparse.Namespace) -> None:
        given = vars(args)
        self.args = args
        self.device: str = _own(given.get("device", "cpu"))
        self.out: Path = given.get("out", Path())
        self.size: int | None = given.get("size")
        self.program: Path | None = given.get("program")
        self.save: Path | None = given.get("save")
        beside = given.get("chosen") or (self.save and "--save")
        if self.program and beside:
            raise BadInput(f"--program is a network that is frozen already: {beside} is not for it")
        if self.save and not self.save.parent.is_dir():
            raise BadInput(f"there is no folder {str(self.save.parent)!r} to save a program in")
        check_device(self.device)
        if "out" in given:
            require_writable(self.out)
        require_size(self.size)
        if "k" in given:
            require_triplets(args.k)

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.args.dtype]

    @cached_property
    def photo(self) -> zoo.Photo:
        return load_photo(self.args.image)

    @property
    def input_name(self) -> str:
        """What pictures and tables call x0."""
        return f"the x0 of {self.program}" if self.program else self.photo.name

    @cached_property
    def networks(self) -> dict[str, zoo.Network]:
        """By the names they were given by."""
        return {name: load_network(name) for name in _listed(self.args.model, MODEL)}

    @property
    def network(self) -> zoo.Network:
        """The one of a command that takes one."""
        return self.networks[self.args.model]

    @contextmanager
    def working(self) -> Iterator[Progress]:
        """A progress bar, and BadInput where the device is full.

        with request.working() as progress: progress(0.5, "drawing")
        """
        with progress_bar() as progress, enough_memory(self.device):
            yield progress

    def systems(self, progress: Progress) -> list[System]:
        """Each network by each policy, all of which make pictures."""
        if self.program:
            return [self.system(PICTURES, progress)]
        policies = list(dict.fromkeys(_listed(self.args.policy, "paper")))
        cases = [
            (model if policies == ["paper"] else f"{model}, {policy}", model, policy)
            for model in dict.fromkeys(_listed(self.args.model, MODEL))
            for policy in policies
        ]
        if self.save and len(cases) > 1:
            raise BadInput("--save is of one network by one policy, and several were given")
        return [self._frozen(*case, PICTURES, progress) for case in cases]

    def system(self, kind: Kind, progress: Progress) -> System:
        """The one network by the one policy, or the one from a file."""
        if self.program:
            progress(0.0, f"reading {self.program}")
            return loaded(self.program, self.device, kind)
        return self._frozen(self.args.model, self.args.model, self.args.policy, kind, progress)

    def _frozen(self, name: str, model: str, policy: str, kind: Kind, progress: Progress) -> System:
        """The only place where a command's operator comes from."""
        image, networks = self.photo.image, self.networks  # all are there before any is frozen
        progress(0.0, f"freezing {name}")
        system = frozen(
            networks[model], image, name, policy, self.size, self.device, self.dtype, kind
        )
        if self.save:
            save(system.op, self.save)
        return system

    def tell(self, numbers: dict[str, Any], outline: Callable[[], str]) -> None:
        """Prints the results: as JSON where that is asked for, else in words."""
        print(json.dumps(numbers, indent=2) if self.args.json else outline())


def _own(device: str) -> str:
    """Of several processes that torchrun started, each has a GPU of its own for "cuda"."""
    if device == "cuda" and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return device


def _listed(option: str | list[str] | None, default: str) -> list[str]:
    return [option] if isinstance(option, str) else option or [default]
