"""From a picture to a network's input."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .images import to_rgb

_CHANNELS = {"RGB": 3, "BGR": 3, "L": 1}
_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Preprocess:
    """What a network's input is; called with a picture, it makes that input.

    `preprocess(image)` takes a PIL image of any mode and gives (1, C, H, W) float32,
    `(pixel / divisor - offset) / deviation` with pixels in 0..255 and the channels in `order`:
    "RGB", "BGR" or "L", one channel of luma. The whole picture is stretched to `size` (height,
    width), or keeps its size when that is None. With `crop` it is not stretched: its shorter side
    becomes size / crop, and the centre of that is cut out (torchvision's way, for square sizes).
    `resampling` is Pillow's "bicubic" or "bilinear". TypeError for anything but a PIL image,
    ValueError for a field out of range.

    >>> Preprocess(divisor=127.5, offset=(1.0, 1.0, 1.0))
    Preprocess: RGB in [-1, 1], at the picture's own size
    """

    size: tuple[int, int] | None = None
    order: str = "RGB"
    divisor: float = 1.0
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)
    crop: float | None = None
    resampling: str = "bicubic"

    def __post_init__(self) -> None:
        for field, value, known in (
            ("order", self.order, _CHANNELS),
            ("resampling", self.resampling, _RESAMPLING),
        ):
            if value not in known:
                raise ValueError(f"{field} is one of {', '.join(known)}, not {value!r}")
        if self.crop is None:
            return
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is a share of the shorter side in (0, 1], not {self.crop}")
        if self.size is None or self.size[0] != self.size[1]:
            raise ValueError(f"crop needs a square size, not {self.size}")

    def __call__(self, image: Image.Image) -> Tensor:
        if not isinstance(image, Image.Image):
            raise TypeError(f"preprocess takes a PIL image, not {type(image).__name__}")
        image = self._sized(to_rgb(image))
        if self.order == "L":
            image = image.convert("L")
        pixels = np.asarray(image, dtype=np.float32).reshape(image.height, image.width, -1)
        if self.order == "BGR":
            pixels = pixels[..., ::-1]
        channels = _CHANNELS[self.order]
        offset = np.asarray(self.offset[:channels], dtype=np.float32)
        deviation = np.asarray(self.deviation[:channels], dtype=np.float32)
        x = (pixels / np.float32(self.divisor) - offset) / deviation
        return torch.from_numpy(x.transpose(2, 0, 1)[None].copy())

    def _sized(self, image: Image.Image) -> Image.Image:
        if self.size is None:
            return image
        height, width = self.size
        resampling = _RESAMPLING[self.resampling]
        if self.crop is None:
            return image.resize((width, height), resampling)
        shorter = round(height / self.crop)
        # Rounded as torchvision rounds, so that its networks see what they were trained to see.
        scaled = [int(shorter * side / min(image.size)) for side in image.size]
        image = image.resize((scaled[0], scaled[1]), resampling)
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))

    def __repr__(self) -> str:
        scaled = set(self.deviation) != {1.0}
        if len(set(self.offset)) == len(set(self.deviation)) == 1:
            low, high = self.levels()
            values = f"in [{low:g}, {high:g}]"
        else:
            values = f"in [0, {255 / self.divisor:g}] minus {self.offset}"
            values += f" over {self.deviation}" if scaled else ""
        return f"Preprocess: {self.order} {values}, {self._size_in_words()}"

    def _size_in_words(self) -> str:
        if self.size is None:
            return "at the picture's own size"
        size = f"{self.size[0]} x {self.size[1]} ({self.resampling})"
        if self.crop is None:
            return f"stretched to {size}"
        return f"the centre {size} of a picture {round(self.size[0] / self.crop)} on its short side"

    def levels(self) -> tuple[float, float]:
        """Black and white of the first channel in the input's units.

        >>> Preprocess(divisor=127.5, offset=(1.0, 1.0, 1.0)).levels()
        (-1.0, 1.0)
        """
        offset, deviation = self.offset[0], self.deviation[0]
        return (0 - offset) / deviation, (255 / self.divisor - offset) / deviation


def rgb(values: Tensor, preprocess: Preprocess) -> Tensor:
    """A network's picture (3, H, W), in the units of its input, as RGB in 0..1.

    rgb(found.y, found.preprocess)
    """
    offset, deviation = (
        torch.tensor(constants, dtype=values.dtype)[:, None, None]
        for constants in (preprocess.offset, preprocess.deviation)
    )
    pixels = (values * deviation + offset) * (preprocess.divisor / 255)
    return pixels.flip(0) if preprocess.order == "BGR" else pixels
