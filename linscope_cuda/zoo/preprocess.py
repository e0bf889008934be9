"""From a picture to a network's input."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .photos import to_rgb


@dataclass(frozen=True)
class Preprocess:
    """What a network's input is; called with a picture, it makes that input.

    `preprocess(image)` takes a PIL image of any mode and gives (1, 3, H, W) float32,
    `pixel / divisor - offset` with pixels in 0..255 and the channels in `order` ("RGB" or "BGR").
    The whole picture is stretched to `size` (height, width) by Pillow's bicubic filter, or keeps
    its size when that is None. TypeError for anything but a PIL image, ValueError for another
    `order`.

    >>> Preprocess(divisor=255)
    Preprocess: RGB in [0, 1], at the picture's own size
    """

    size: tuple[int, int] | None = None
    order: str = "RGB"
    divisor: float = 1.0
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.order not in ("RGB", "BGR"):
            raise ValueError(f'order is "RGB" or "BGR", not {self.order!r}')

    def __call__(self, image: Image.Image) -> Tensor:
        if not isinstance(image, Image.Image):
            raise TypeError(f"preprocess takes a PIL image, not {type(image).__name__}")
        image = to_rgb(image)
        if self.size is not None:
            height, width = self.size
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.asarray(image, dtype=np.float32)
        if self.order == "BGR":
            pixels = pixels[..., ::-1]
        x = pixels / np.float32(self.divisor) - np.asarray(self.offset, dtype=np.float32)
        return torch.from_numpy(x.transpose(2, 0, 1)[None].copy())

    def __repr__(self) -> str:
        if len(set(self.offset)) == 1:
            low, high = (value / self.divisor - self.offset[0] for value in (0, 255))
            values = f"in [{low:g}, {high:g}]"
        else:
            values = f"in [0, {255 / self.divisor:g}] minus {self.offset}"
        size = "at the picture's own size"
        if self.size is not None:
            size = f"stretched to {self.size[0]} x {self.size[1]} (bicubic)"
        return f"Preprocess: {self.order} {values}, {size}"
