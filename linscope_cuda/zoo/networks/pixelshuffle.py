"""The four-layer sub-pixel super-resolution network."""

from torch import nn


class PixelShuffle4(nn.Sequential):
    """The four-layer sub-pixel super-resolution network of the deep-learning tutorials.

    Maps (N, channels, H, W) in [0, 1] to (N, channels, scale * H, scale * W).

    >>> PixelShuffle4(scale=3)(torch.rand(1, 3, 16, 16)).shape
    torch.Size([1, 3, 48, 48])
    """

    def __init__(self, scale: int, channels: int = 3) -> None:
        super().__init__(
            nn.Conv2d(channels, 64, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, channels * scale**2, 3, padding=1),
            nn.PixelShuffle(scale),
        )
