"""HED, the edge detector on the trunk of VGG-16."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # features and convolutions of each


class HED(nn.Module):
    """Holistically-nested edge detection (Xie and Tu 2015): five blocks of VGG-16, each looked at
    by one 1x1 convolution, enlarged, and fused into one map.

    Maps (N, 3, H, W), BGR in 0..255 minus the mean, to edge probabilities (N, 1, H, W).

    >>> HED()(torch.rand(1, 3, 32, 32)).shape
    torch.Size([1, 1, 32, 32])
    """

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.sides = nn.ModuleList(), nn.ModuleList()
        inputs = 3
        for features, convolutions in _BLOCKS:
            # Odd sizes keep their last pixel, as in Keras, where the weights come from.
            layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if self.blocks else []
            for _ in range(convolutions):
                layers += [nn.Conv2d(inputs, features, 3, padding=1), nn.ReLU()]
                inputs = features
            self.blocks.append(nn.Sequential(*layers))
            self.sides.append(nn.Conv2d(features, 1, 1))
        self.fuse = nn.Conv2d(len(_BLOCKS), 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        maps = []
        for block, side in zip(self.blocks, self.sides, strict=True):
            x = block(x)
            maps.append(F.interpolate(side(x), size, mode="bilinear"))
        return torch.sigmoid(self.fuse(torch.cat(maps, dim=1)))
