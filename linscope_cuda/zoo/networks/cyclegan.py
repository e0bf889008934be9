"""CycleGAN's generator, in the key naming of its authors."""

from torch import Tensor, nn


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
