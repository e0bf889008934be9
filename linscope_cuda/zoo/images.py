"""Photos to look at: scikit-image's, twenty labelled ones of ImageNet, or any image file."""

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from .fetch import Wheel


@dataclass(frozen=True)
class Photo:
    """An RGB picture, the index of its ImageNet class if known, and its name."""

    image: Image.Image
    label: int | None
    name: str


# The photographs among the images that scikit-image carries inside its wheel.
_SKIMAGE_FILES = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)
_SKIMAGE = {Path(file).stem: file for file in _SKIMAGE_FILES}
_ALIASES = {"cat": "chelsea"}

_FOOLBOX = Wheel(
    project="foolbox",
    version="3.3.4",
    file="foolbox-3.3.4-py3-none-any.whl",
    sha256="11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
)
# ImageNet's photos are not ours to redistribute: they are read from the fetched wheel. The place
# in this row is the first number of the file's name, the label the second.
_IMAGENET_LABELS = (
    *(243, 559, 438, 990, 949, 853, 609, 609, 915, 455),
    *(541, 630, 741, 471, 129, 99, 251, 22, 317, 305),
)
_IMAGENET = {f"imagenet_{i:02d}_{label}": label for i, label in enumerate(_IMAGENET_LABELS)}


def _skimage_photo(name: str) -> Photo:
    data = resources.files("skimage").joinpath("data", _SKIMAGE[name]).read_bytes()
    return Photo(decode(io.BytesIO(data), name), None, name)


def _imagenet_photo(name: str) -> Photo:
    data = _FOOLBOX.read(f"foolbox/data/{name}.jpg")
    return Photo(decode(io.BytesIO(data), name), _IMAGENET[name], name)


_SETS: dict[str, tuple[Sequence[str], Callable[[str], Photo]]] = {
    "skimage": (tuple(_SKIMAGE), _skimage_photo),
    "imagenet20": (tuple(_IMAGENET), _imagenet_photo),
}


def photos(name: str) -> Sequence[Photo]:
    """The photos of the set `name`: "skimage", or "imagenet20" (labelled, fetched once by pip).

    Every image is RGB, at its own size. ValueError for an unknown set, FetchError (an OSError)
    when the photos cannot be fetched.

    >>> [photo.name for photo in photos("skimage")][:2]
    ['astronaut', 'brick']
    """
    if name not in _SETS:
        raise ValueError(f"there are no photos {name!r}; the sets are {', '.join(_SETS)}")
    members, load = _SETS[name]
    return tuple(load(member) for member in members)


def photo(name_or_path: str | os.PathLike[str]) -> Photo:
    """One photo: a name of the sets ("cat" is chelsea), else the path of an image file.

    The image is RGB: the camera's orientation is applied, transparency becomes white, and 16-bit
    values are scaled to 8 bits. FileNotFoundError when there is no such name or file, ValueError
    for a folder or a file that is no whole image.

    >>> photo("cat").image.size
    (451, 300)
    """
    name = os.fspath(name_or_path)
    if isinstance(name_or_path, str):
        name = _ALIASES.get(name, name)
        for members, load in _SETS.values():
            if name in members:
                return load(name)
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        raise ValueError(f"{name!r} is a folder, and the path of an image file is wanted")
    if not path.is_file():
        raise FileNotFoundError(
            f"{name!r} is neither an image file nor a photo of the zoo "
            f"({', '.join([*_ALIASES, *_SKIMAGE])}, imagenet_00_243 ...)"
        )
    with path.open("rb") as file:
        return Photo(decode(file, name), None, path.stem)


def decode(file: BinaryIO, name: str) -> Image.Image:
    """The RGB picture in an image file, as `photo` gives it; ValueError for what is none.

    decode(io.BytesIO(png), "holiday.png").size
    """
    try:
        with Image.open(file) as image:
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"{name!r} is not an image that Pillow can read") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name!r} has too many pixels: {error}") from error
    except MemoryError:
        raise
    # A damaged file makes Pillow's decoders raise nearly anything: OSError, SyntaxError,
    # struct.error, zlib.error. To the caller it is one thing.
    except Exception as error:
        raise ValueError(f"{name!r} is not a whole image: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in 8-bit RGB: transparency over white, 16-bit and floating grey values scaled.

    Floating values count as 0..1 unless one exceeds 1, else as 0..255; 32-bit integers, in which
    Pillow also hands out 16-bit files, as 0..65535.
    """
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.nan_to_num(np.asarray(image, dtype=np.float64))
        if image.mode != "F":
            grey = grey / 257
        elif grey.max(initial=0) <= 1:
            grey = grey * 255
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(opaque, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
