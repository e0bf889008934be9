"""What one call of a command asks for: its options, and what they name."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from .. import zoo
from ..ctrl_c import INTERRUPTED
from ..report import BadInput, require_writable
from ..study.fields import require_reach
from ..study.framing import FITS, Fit, cropped
from ..study.named import load_network, load_photo, require_known
from ..study.photos import (
    DEFAULT_SIZE,
    require_photo,
    require_size,
    require_triplets,
)
from ..study.system import PICTURES, Kind, System, frozen, loaded
from .inputs import check_device, save
from .options import DTYPES, MODEL
from .terminal import Progress, enough_memory, progress_bar, say


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
        if "share" in given:
            try:
                require_reach(args.share, args.within)
            except ValueError as error:
                raise BadInput(str(error)) from error
        self.framing = ""
        for name in _listed(args.model, MODEL) if "model" in given and not self.program else ():
            self._require_known(name)

    def _require_known(self, name: str) -> None:
        """BadInput for all that is wrong with a network that is known before it is fetched."""
        known, given = require_known(name, self.args.wants), vars(self.args)
        pixel, channel = given.get("pixel"), given.get("channel")
        if not known or given.get("at", "input") != "input":
            return
        channels = 1 if known.preprocess.order == "L" else 3
        if channel is not None and not 0 <= channel < channels:
            raise BadInput(f"channel wants 0 ... {channels - 1}, was given {channel}")
        usual = known.preprocess.size or (DEFAULT_SIZE, DEFAULT_SIZE)
        extents = (self.size, self.size) if self.size else usual
        if not pixel or given.get("fit") == "whole":
            return
        if not all(0 <= place < extent for place, extent in zip(pixel, extents, strict=True)):
            shape = " x ".join(map(str, extents))
            raise BadInput(f"pixel {pixel[0]},{pixel[1]} lies outside the {shape} input")

    @property
    def command(self) -> str:
        """As it was typed."""
        return shlex.join(["linscope", *self.args.words])

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.args.dtype]

    @cached_property
    def photo(self) -> zoo.Photo:
        photo = load_photo(self.args.image)
        image = cropped(photo.image, vars(self.args).get("crop"))
        require_photo(image)
        return dataclasses.replace(photo, image=image)

    def fit(self, usual: Fit) -> Fit:
        """How a photo becomes x0, by --fit, else as usual."""
        return FITS.get(self.args.fit, usual)

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
        with progress_bar(self.args.quiet) as progress, enough_memory(self.device):
            yield progress

    def systems(self, progress: Progress) -> list[System]:
        """Each network by each policy, all of which make pictures."""
        if self.program:
            return [self.system(PICTURES, progress)]
        if self.save and len(self.cases) > 1:
            raise BadInput("--save is of one network by one policy, and several were given")
        return [self._frozen(*case, PICTURES, progress) for case in self.cases]

    @property
    def cases(self) -> list[tuple[str, str, str]]:
        """Each network by each policy: what pictures call it, the network, the policy."""
        policies = list(dict.fromkeys(_listed(self.args.policy, "paper")))
        return [
            (model if policies == ["paper"] else f"{model}, {policy}", model, policy)
            for model in dict.fromkeys(_listed(self.args.model, MODEL))
            for policy in policies
        ]

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
        framed = dataclasses.replace(kind, fit=self.fit(kind.fit))
        system = frozen(
            networks[model], image, name, policy, self.size, self.device, self.dtype, framed
        )
        self.framing = system.framing
        if self.save:
            save(system.op, self.save)
        return system

    def tell(self, numbers: dict[str, Any], outline: Callable[[], str]) -> None:
        """Prints the results: as JSON where that is asked for, else in words; with what became of
        the photo.
        """
        framing = {"framing": self.framing} if self.framing else {}
        if self.args.json:
            print(json.dumps(numbers | framing, indent=2))
            return
        first, *rest = outline().split("\n")
        print("\n".join([first, *(f"input: {said}" for said in framing.values()), *rest]))

    def stopped(self, done: str, kept: str) -> int:
        """Says after Ctrl-C what was done of how much, and what is kept; the exit code.

        return request.stopped("7 of 16 triplets", "the page has these")
        """
        sys.stdout.flush()
        say(f"stopped: {done}; {kept}")
        return INTERRUPTED


def _own(device: str) -> str:
    """Of several processes that torchrun started, each has a GPU of its own for "cuda"."""
    if device == "cuda" and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return device


def _listed(option: str | list[str] | None, default: str) -> list[str]:
    return [option] if isinstance(option, str) else option or [default]
