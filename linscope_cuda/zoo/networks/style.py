"""The feed-forward style transfer network, for one style at a time."""

from torch import Tensor, nn

_FEATURES = 32
_ENLARGED = (8, 4)  # the published network is thinned out where the picture is large
_BLOCKS = 6


def _layer(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.ReflectionPad2d(kernel // 2),
        nn.Conv2d(inputs, outputs, kernel, stride, bias=False),
        nn.InstanceNorm2d(outputs, affine=True),
    ]


def _enlarged(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Upsample(scale_factor=2, mode="nearest"), *_layer(inputs, outputs, 3), nn.ReLU()]


class StyleBlock(nn.Module):
    """x plus two normalised convolutions of it."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_layer(features, features, 3), nn.ReLU(), *_layer(features, features, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class StyleTransfer(nn.Sequential):
    """The network of Johnson et al. 2016 with the instance norms of Dumoulin et al. 2017, whose
    scales and shifts are the style.

    Maps (N, 3, H, W), RGB in [0, 1], to the same shape when H and W are multiples of 4.

    >>> StyleTransfer()(torch.rand(1, 3, 32, 32)).shape
    torch.Size([1, 3, 32, 32])
    """

    def __init__(self) -> None:
        n, (half, full) = _FEATURES, _ENLARGED
        super().__init__(
            *(*_layer(3, n, 9), nn.ReLU()),
            *(*_layer(n, n, 3, stride=2), nn.ReLU()),
            *(*_layer(n, n, 3, stride=2), nn.ReLU()),
            *(StyleBlock(n) for _ in range(_BLOCKS)),
            *_enlarged(n, half),
            *_enlarged(half, full),
            *(*_layer(full, 3, 9), nn.Sigmoid()),
        )
