"""The seven-layer super-resolution network of waifu2x."""

from itertools import pairwise

from torch import nn

_FEATURES = (3, 16, 32, 64, 128, 128, 256)
_MARGIN = 7  # pixels that the convolutions and the cut of the last layer take off each side


class UpConv7(nn.Sequential):
    """Six 3x3 convolutions with leaky ReLUs, then one transposed 4x4 of stride 2 (waifu2x).

    Maps (N, 3, H, W), RGB in [0, 1], to (N, 3, 2 H, 2 W); the picture's edge is repeated outwards
    first, as waifu2x does.

    >>> UpConv7()(torch.rand(1, 3, 16, 16)).shape
    torch.Size([1, 3, 32, 32])
    """

    def __init__(self) -> None:
        layers: list[nn.Module] = [nn.ReplicationPad2d(_MARGIN)]
        for inputs, outputs in pairwise(_FEATURES):
            layers += [nn.Conv2d(inputs, outputs, 3), nn.LeakyReLU(0.1)]
        super().__init__(*layers, nn.ConvTranspose2d(_FEATURES[-1], 3, 4, stride=2, padding=3))
