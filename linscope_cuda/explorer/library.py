"""Networks and photos by name, and the systems frozen from them: kept while they are looked at."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from PIL import Image

from .. import zoo
from ..frozen.network import FrozenNetwork
from ..linalg.svd import SVD
from ..study.errors import BadInput
from ..study.named import load_network, load_photo
from ..study.system import EITHER, System, frozen
from .subject import Subject

MOST_SYSTEMS = 4
MOST_UPLOADS = 8
GIVEN = "op"  # what an operator that was handed over is called

_PHOTOS = ("cat", "astronaut", "coffee", "rocket", "motorcycle_left", "retina", "text", "brick")


@dataclass(eq=False)
class Looked:
    """A system that is looked at, the names of its scores, and the lines that make its `op`.

    `lock` is held by whoever computes with `system.op`; what takes long has a copy of its own.
    """

    system: System
    python: str
    class_name: Callable[[int], str]
    source: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    spectra: dict[int, SVD] = field(default_factory=dict)

    @property
    def op(self) -> FrozenNetwork:
        return self.system.op

    @property
    def is_classifier(self) -> bool:
        return len(self.op.output_shape) == 1

    @cached_property
    def own_copy(self) -> FrozenNetwork:
        """For what takes long, so that the pointer need not wait for it."""
        with self.lock:
            return copy.deepcopy(self.op)


class Library:
    """The networks and photos that a page may name, those dropped on it, and the last few systems.

    Library(["pixelshuffle4_x3"], ["cat"]).looked(Subject("pixelshuffle4_x3", "cat"))
    """

    def __init__(
        self,
        models: Sequence[str] = (),
        photos: Sequence[str] = (),
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.models = list(dict.fromkeys([*models, *zoo.names()]))
        self.photos = list(dict.fromkeys([*photos, *_PHOTOS]))
        self.device, self.dtype = device, dtype
        self._networks: dict[str, zoo.Network] = {}
        self._uploads: OrderedDict[str, tuple[Image.Image, str]] = OrderedDict()
        self._systems: OrderedDict[Subject, Looked] = OrderedDict()
        self._lock = threading.Lock()  # of these tables
        self._freezing = threading.Lock()  # one at a time

    def add(self, image: Image.Image, file: str = "") -> str:
        """The name under which the picture of a file is kept, in memory, while there is room."""
        digest = hashlib.sha256(image.tobytes() + repr(image.size).encode()).hexdigest()
        name = f"dropped-{digest[:12]}"
        with self._lock:
            self._uploads[name] = image, file
            self._uploads.move_to_end(name)
            while len(self._uploads) > MOST_UPLOADS:
                self._uploads.popitem(last=False)
        return name

    def photo(self, name: str) -> Image.Image:
        """A photo by a name that a page may say; BadInput for another."""
        with self._lock:
            dropped = self._uploads.get(name)
        if dropped is not None:
            return dropped[0]
        if name.startswith("dropped-"):
            raise BadInput(
                "this address shows a picture that was dropped on the page and is no longer kept: "
                "drop it again"
            )
        if name not in self.photos and not name.startswith("imagenet_"):
            raise BadInput(f"there is no photo {name!r:.60}; there are {', '.join(self.photos)}")
        return load_photo(name).image

    def looked(self, subject: Subject) -> Looked:
        """The frozen system, made where it is not there; BadInput if it cannot be."""
        with self._lock:
            if (found := self._systems.get(subject)) is not None:
                self._systems.move_to_end(subject)
                return found
        if subject.model not in self.models:
            raise BadInput(
                f"there is no network {subject.model!r:.60}; there are {', '.join(self.models)}"
            )
        with self._freezing:
            with self._lock:
                found = self._systems.get(subject)
            if found is None:  # nobody made it in the meantime
                found = self._frozen(subject)
                with self._lock:
                    self._systems[subject] = found
                    while len(self._systems) > MOST_SYSTEMS:
                        self._systems.popitem(last=False)
        return found

    def _frozen(self, subject: Subject) -> Looked:
        image = subject.cut(self.photo(subject.photo))
        if subject.model not in self._networks:
            self._networks[subject.model] = load_network(subject.model)
        network = self._networks[subject.model]
        given = subject.policy, subject.size, self.device, self.dtype
        system = frozen(network, image, subject.model, *given, kind=EITHER)
        with self._lock:
            _, file = self._uploads.get(subject.photo, (image, ""))
        return Looked(system, subject.python(file), network.class_name, network.source)


class Given(Library):
    """The library of one operator that was handed over.

    Given(Looked(System("op", op, preprocess), "", str))
    """

    def __init__(self, looked: Looked) -> None:
        super().__init__()
        self.models, self.photos = [GIVEN], [GIVEN]
        self._only = looked

    def photo(self, name: str) -> Image.Image:
        raise BadInput("the photo is the x0 of op: no other can be chosen here")

    def looked(self, subject: Subject) -> Looked:
        if (subject.model, subject.photo) != (GIVEN, GIVEN):
            raise BadInput(f"there is {GIVEN} alone, not {subject.model!r:.60}")
        return self._only
