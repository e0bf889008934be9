"""What is looked at: one network by one policy on one part of one photo at one size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..rules.policy import POLICIES
from ..study.errors import BadInput
from ..study.photos import SMALLEST_PHOTO, require_size

Crop = tuple[int, int, int]  # left, top, side, in pixels of the photo


@dataclass(frozen=True)
class Subject:
    """A network and a photo by their names; `size` None is the network's own, `crop` None all."""

    model: str
    photo: str
    policy: str = "paper"
    size: int | None = None
    crop: Crop | None = None

    @staticmethod
    def of(given: Any) -> Subject:
        """From what a page says; BadInput for what is none.

        Subject.of({"model": "pixelshuffle4_x3", "photo": "cat"})
        """
        if not isinstance(given, Mapping):
            raise BadInput(f"a network and a photo are wanted, was given {given!r:.60}")
        model, photo = given.get("model"), given.get("photo")
        policy = given.get("policy") or "paper"
        size, crop = given.get("size"), given.get("crop")
        if not isinstance(model, str) or not isinstance(photo, str):
            raise BadInput(f"names of a network and a photo are wanted, was given {given!r:.60}")
        if policy not in POLICIES:
            raise BadInput(f"policy wants one of {', '.join(POLICIES)}, was given {policy!r:.40}")
        if size is not None and not isinstance(size, int):
            raise BadInput(f"size wants a whole number of pixels, was given {size!r:.40}")
        require_size(size)
        if crop is not None:
            if not isinstance(crop, list | tuple) or not all(isinstance(v, int) for v in crop):
                raise BadInput(f"crop wants left, top and side in pixels, was given {crop!r:.40}")
            if len(crop) != 3:
                raise BadInput(f"crop wants left, top and side, was given {len(crop)} numbers")
            crop = (crop[0], crop[1], crop[2])
        return Subject(model, photo, policy, size, crop)

    def cut(self, image: Image.Image) -> Image.Image:
        """That part of the photo; BadInput where it is not all inside."""
        if self.crop is None:
            return image
        left, top, side = self.crop
        inside = left >= 0 and top >= 0 and left + side <= image.width
        if not inside or top + side > image.height or side < SMALLEST_PHOTO:
            raise BadInput(
                f"crop wants a square of {SMALLEST_PHOTO} pixels or more inside of the photo's "
                f"{image.width} x {image.height}, was given left {left}, top {top}, side {side}"
            )
        return image.crop((left, top, left + side, top + side))

    @property
    def address(self) -> dict[str, str]:
        """As the page's address says it."""
        own = {"model": self.model, "photo": self.photo, "policy": self.policy}
        size = {"size": str(self.size)} if self.size else {}
        return own | size | ({"crop": ",".join(map(str, self.crop))} if self.crop else {})

    def python(self, file: str = "") -> str:
        """The lines that make the operator `op`; `file` is that of a photo without another name."""
        photo = f"ls.zoo.photo({(file or self.photo)!r}).image"
        if self.crop:
            left, top, side = self.crop
            photo += f".crop(({left}, {top}, {left + side}, {top + side}))"
        if file:
            photo += "  # the file that was dropped"
        size = f", size={self.size}" if self.size else ""
        return (
            "import linscope_cuda as ls\n"
            "from linscope_cuda.study.system import EITHER, frozen\n\n"
            f"network = ls.zoo.load({self.model!r})\n"
            f"photo = {photo}\n"
            f"op = frozen(network, photo, {self.model!r}, {self.policy!r}{size}, kind=EITHER).op\n"
        )
