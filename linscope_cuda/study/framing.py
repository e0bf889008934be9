"""Which part of a photo becomes a network's input, and in which shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image, ImageOps
from torch import Tensor

from ..zoo import Network
from ..zoo.preprocess import Preprocess
from .errors import BadInput
from .photos import DEFAULT_SIZE, SIZES, SMALLEST_PHOTO, require_photo, require_size, resized

Crop = tuple[int, int, int, int]  # left, top, width, height, in pixels of the photo


class Framed(NamedTuple):
    """x0, the preprocessing that made it, and in words what became of the photo."""

    preprocess: Preprocess
    x0: Tensor
    words: str


# Of a network, a photo and a size; None: the network's own, or a usual one.
Fit = Callable[[Network, Image.Image, "int | None"], Framed]


def cropped(image: Image.Image, crop: Crop | None) -> Image.Image:
    """That part of a photo; BadInput where it is not all inside, or too small.

    cropped(zoo.photo("cat").image, (100, 20, 200, 150))
    """
    if crop is None:
        return image
    left, top, width, height = crop
    fits = 0 <= left <= image.width - width and 0 <= top <= image.height - height
    if not fits or min(width, height) < SMALLEST_PHOTO:
        raise BadInput(
            f"crop wants left, top, width and height, {SMALLEST_PHOTO} pixels or more inside of "
            f"the photo's {image.width} x {image.height}, was given "
            f"{left},{top},{width},{height}"
        )
    return image.crop((left, top, left + width, top + height))


def cut(network: Network, image: Image.Image, size: int | None) -> Framed:
    """x0 of the photo's centred part at the network's proportions, so that nothing is stretched,
    scaled to `size` pixels square; None: the network's own size, or 48. BadInput if the photo or
    `size` is out of range.

    cut(zoo.load("pixelshuffle4_x3"), zoo.photo("cat").image, 64).x0
    """
    preprocess, (height, width) = _sized(network, image, size)
    if preprocess.crop:
        return own(dataclasses.replace(network, preprocess=preprocess), image, None)
    part = ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.BICUBIC)
    share = min(image.width / width, image.height / height)
    used = round(width * share), round(height * share)
    return Framed(preprocess, preprocess(part), _words(image, used, (width, height)))


def stretch(network: Network, image: Image.Image, size: int | None) -> Framed:
    """x0 of the whole photo, stretched to that size. Errors as `cut`.

    stretch(zoo.load("pixelshuffle4_x3"), zoo.photo("cat").image, 64).x0
    """
    preprocess, (height, width) = _sized(network, image, size)
    return _scaled(preprocess, image, (width, height))


def whole(network: Network, image: Image.Image, size: int | None) -> Framed:
    """x0 of the whole photo in its own proportions, its shorter side scaled to `size`. Errors as
    `cut`; BadInput also where the longer side gets too long.

    whole(zoo.load("pixelshuffle4_x3"), zoo.photo("cat").image, 64).x0    # 64 x 96
    """
    preprocess, sides = _sized(network, image, size)
    scale = min(sides) / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    if max(width, height) > SIZES[1]:
        raise BadInput(
            f"the whole photo, {image.width} x {image.height}, is {width} x {height} pixels at "
            f"size {min(sides)}, and {SIZES[1]} is the most; a smaller --size or --crop helps"
        )
    return _scaled(preprocess, image, (width, height))


def own(network: Network, image: Image.Image, size: int | None) -> Framed:
    """x0 as the network's own preprocessing makes it of a photo; None: of its own size, or 224.
    Errors as `cut`.

    own(zoo.load("squeezenet1_1"), zoo.photo("cat").image, None).x0
    """
    require_photo(image)
    preprocess = resized(network, size).preprocess
    x0 = preprocess(image)
    used = image.size
    if preprocess.crop:  # of a square
        side = round(min(image.size) * preprocess.crop)
        used = side, side
    return Framed(preprocess, x0, _words(image, used, (x0.shape[3], x0.shape[2])))


FITS: dict[str, Fit] = {"cut": cut, "stretch": stretch, "whole": whole}


def _sized(
    network: Network, image: Image.Image, size: int | None
) -> tuple[Preprocess, tuple[int, int]]:
    """The preprocessing for that size, and height and width."""
    require_photo(image)
    require_size(size)
    preprocess = network.preprocess
    if size is None:
        return preprocess, preprocess.size or (DEFAULT_SIZE, DEFAULT_SIZE)
    square = size, size
    return dataclasses.replace(preprocess, size=preprocess.size and square), square


def _scaled(preprocess: Preprocess, image: Image.Image, size: tuple[int, int]) -> Framed:
    width, height = size
    preprocess = dataclasses.replace(
        preprocess, size=preprocess.size and (height, width), crop=None
    )
    part = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    return Framed(preprocess, preprocess(part), _words(image, image.size, size))


def _words(image: Image.Image, used: tuple[int, int], made: tuple[int, int]) -> str:
    """What of the photo was used, and what was made of it; widths first."""
    (w, h), (width, height) = used, made
    part = f"the centred {w} x {h}" if used != image.size else "all"
    # What rounding to whole pixels may do is no stretching.
    stretched = abs(w * height - h * width) > max(w, h, width, height)
    end = f", stretched to {width} x {height}" if stretched else f", as {width} x {height}"
    return f"{part} of {image.width} x {image.height} pixels{end}"
