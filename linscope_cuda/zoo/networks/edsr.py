"""EDSR, in the key naming of its authors."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Mean colour of the DIV2K training photos (RGB in [0, 1]), a constant of the EDSR checkpoints.
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


class MeanShift(nn.Conv2d):
    """Adds `sign` times the mean colour: a fixed 1x1 convolution, as in the EDSR checkpoints."""

    def __init__(self, sign: int, mean: Sequence[float] = DIV2K_MEAN, peak: float = 255.0) -> None:
        super().__init__(len(mean), len(mean), 1)
        with torch.no_grad():
            self.weight.copy_(torch.eye(len(mean))[:, :, None, None])
            assert self.bias is not None
            self.bias.copy_(sign * peak * torch.tensor(mean))
        self.requires_grad_(False)


class EDSRBlock(nn.Module):
    """x + residual_scale * conv(relu(conv(x))), without normalisation."""

    def __init__(self, features: int, residual_scale: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, padding=1),
        )
        self.residual_scale = residual_scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual_scale * self.body(x)


def _edsr_upsampler(features: int, scale: int) -> nn.Sequential:
    """Steps of 2 for a power of two, one step of 3 for 3: the only scales EDSR is published for."""
    if scale == 3:
        steps = [3]
    elif scale >= 2 and scale & (scale - 1) == 0:
        steps = [2] * int(math.log2(scale))
    else:
        raise ValueError(f"scale must be 3 or a power of two from 2 on, not {scale}")
    layers: list[nn.Module] = []
    for step in steps:
        layers += [nn.Conv2d(features, features * step**2, 3, padding=1), nn.PixelShuffle(step)]
    return nn.Sequential(*layers)


class EDSR(nn.Module):
    """Enhanced deep residual super-resolution network (Lim et al. 2017).

    The defaults are the authors' large model; `EDSR.baseline` is their small one. Maps
    (N, 3, H, W), RGB in 0..255, to (N, 3, scale * H, scale * W). The keys of its state dict are
    the authors' (head, body, tail, sub_mean, add_mean). ValueError for a scale other than 3 or
    a power of two.

    >>> EDSR.baseline(scale=2)(torch.rand(1, 3, 16, 16) * 255).shape
    torch.Size([1, 3, 32, 32])
    """

    def __init__(
        self,
        blocks: int = 32,
        features: int = 256,
        scale: int = 4,
        residual_scale: float = 0.1,
    ) -> None:
        super().__init__()
        self.sub_mean = MeanShift(-1)
        self.head = nn.Sequential(nn.Conv2d(3, features, 3, padding=1))
        self.body = nn.Sequential(
            *(EDSRBlock(features, residual_scale) for _ in range(blocks)),
            nn.Conv2d(features, features, 3, padding=1),
        )
        self.tail = nn.Sequential(
            _edsr_upsampler(features, scale), nn.Conv2d(features, 3, 3, padding=1)
        )
        self.add_mean = MeanShift(+1)

    @classmethod
    def baseline(cls, scale: int = 2) -> "EDSR":
        """The authors' baseline: 16 blocks of 64 features, residuals not scaled."""
        return cls(blocks=16, features=64, scale=scale, residual_scale=1.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.sub_mean(x))
        return self.add_mean(self.tail(x + self.body(x)))
