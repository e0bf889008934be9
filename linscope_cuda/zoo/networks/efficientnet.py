"""EfficientNet-Lite0: depthwise convolutions, batch norm and ReLU6, no squeeze and no swish."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# (blocks, kernel, stride of the first, expansion, features) of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280
_EPSILON = 1e-3  # TensorFlow's, in which the weights were trained


class SameConv2d(nn.Conv2d):
    """A convolution padded by TensorFlow's rule "SAME": ceil(size / stride) outputs, and the odd
    pixel of padding behind.
    """

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(x.shape[2:], self.kernel_size, self.stride, strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads = [total // 2, total - total // 2, *pads]  # F.pad wants the last dimension first
        return super().forward(F.pad(x, pads) if any(pads) else x)


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list:
    return [
        SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=_EPSILON),
        nn.ReLU6(),
    ]


class InvertedResidual(nn.Module):
    """Widened by 1x1, filtered channel by channel, narrowed by 1x1; plus x where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.layers = nn.Sequential(
            *(_unit(inputs, width, 1) if expansion > 1 else []),
            *_unit(width, width, kernel, stride, groups=width),
            *_unit(width, outputs, 1)[:-1],
        )
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return y + x if self.adds_input else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 (Tan and Le 2019; Google 2020).

    Maps (N, 3, H, W), trained at 224 x 224, to scores (N, classes), before the softmax. Its
    parameters come in the order of the published checkpoint.

    >>> EfficientNetLite0().eval()(torch.rand(1, 3, 64, 64)).shape
    torch.Size([1, 1000])
    """

    def __init__(self, classes: int = 1000, dropout: float = 0.2) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_unit(3, _STEM, 3, 2))
        blocks: list[nn.Module] = []
        inputs = _STEM
        for repeats, kernel, first_stride, expansion, outputs in _STAGES:
            for stride in [first_stride] + [1] * (repeats - 1):
                blocks.append(InvertedResidual(inputs, outputs, kernel, stride, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*_unit(inputs, _HEAD, 1), nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(_HEAD, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.head(self.blocks(self.stem(x))), 1))
