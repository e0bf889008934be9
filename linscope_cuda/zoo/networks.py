"""Architectures of the zoo as plain modules, in the key naming of the published checkpoints."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Mean colour of the DIV2K training photos (RGB in [0, 1]), a constant of the EDSR checkpoints.
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


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


class CycleGANBlock(nn.Module):
    """x plus two reflection-padded, instance-normalised convolutions of it."""

    def __init__(self, features: int, affine: bool) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(features, features, 3),
            nn.InstanceNorm2d(features, affine=affine),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(features, features, 3),
            nn.InstanceNorm2d(features, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class CycleGAN(nn.Module):
    """The ResNet generator of CycleGAN (Zhu et al. 2017).

    Maps (N, 3, H, W), RGB in [-1, 1], to the same shape when H and W are multiples of 4. The keys
    of its state dict are the authors' (`model.N...`, blocks `model.N.conv_block.M...`); the
    authors' checkpoints have no affine parameters in their instance norms.

    >>> CycleGAN(blocks=2, features=8)(torch.rand(1, 3, 32, 32) * 2 - 1).shape
    torch.Size([1, 3, 32, 32])
    """

    def __init__(self, blocks: int = 9, features: int = 64, affine: bool = False) -> None:
        super().__init__()

        def normed(convolution: nn.Module, width: int) -> list[nn.Module]:
            return [convolution, nn.InstanceNorm2d(width, affine=affine), nn.ReLU()]

        f1, f2, f4 = features, 2 * features, 4 * features
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3),
            *normed(nn.Conv2d(3, f1, 7), f1),
            *normed(nn.Conv2d(f1, f2, 3, stride=2, padding=1), f2),
            *normed(nn.Conv2d(f2, f4, 3, stride=2, padding=1), f4),
            *(CycleGANBlock(f4, affine) for _ in range(blocks)),
            *normed(nn.ConvTranspose2d(f4, f2, 3, 2, padding=1, output_padding=1), f2),
            *normed(nn.ConvTranspose2d(f2, f1, 3, 2, padding=1, output_padding=1), f1),
            nn.ReflectionPad2d(3),
            nn.Conv2d(f1, 3, 7),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Fire(nn.Module):
    """SqueezeNet's block: a 1x1 squeeze, then 1x1 and 3x3 expansions side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.squeeze_activation = nn.ReLU()
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand1x1_activation = nn.ReLU()
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.expand3x3_activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        left = self.expand1x1_activation(self.expand1x1(x))
        right = self.expand3x3_activation(self.expand3x3(x))
        return torch.cat([left, right], dim=1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1 (Iandola et al. 2016), in torchvision's key naming.

    Maps (N, 3, H, W) to scores (N, classes), before the softmax.

    >>> SqueezeNet()(torch.rand(1, 3, 64, 64)).shape
    torch.Size([1, 1000])
    """

    def __init__(self, classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()

        def pool() -> nn.Module:
            return nn.MaxPool2d(3, stride=2, ceil_mode=True)

        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(),
            pool(),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            pool(),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            pool(),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Conv2d(512, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)
