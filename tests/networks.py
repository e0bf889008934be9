"""Small networks that use every layer the package knows, in every spelling."""

import torch
import torch.nn.functional as F
from place import here
from torch import nn


class Spellings(nn.Module):
    """Modules, functional and in-place calls, a module used twice, branches, constants."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.same = nn.Conv2d(8, 8, (2, 3), padding="same")
        self.grouped = nn.Conv2d(16, 16, 3, padding="same", groups=4, dilation=2)
        self.shuffle = nn.PixelShuffle(2)
        self.up = nn.ConvTranspose2d(4, 6, 4, 2, 1)
        self.leaky = nn.LeakyReLU(0.1, inplace=True)
        self.slopes = nn.PReLU(6)
        self.average = nn.AvgPool2d(3, 2, 1)
        self.last = nn.Linear(6 * 4, 5)
        self.register_buffer("mean", torch.randn(1, 3, 1, 1))

    def forward(self, x):
        x = (x - self.mean) / 2.5
        h = self.pool(self.relu(self.norm(self.first(x))))
        dilated = F.max_pool2d(h, 3, 1, padding=1, dilation=1)
        h = torch.cat([self.same(h).relu_() + h, 1 - dilated], 1)
        h = self.shuffle(torch.relu(self.grouped(h)))
        h = self.slopes(self.leaky(self.up(h)) * 3)
        h = self.average(h)
        self.relu(h)  # in place: its result is not taken
        h = F.relu6(F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False) * 20)
        return 0.5 * self.last(F.adaptive_avg_pool2d(h, 2).flatten(1)) + 1


class Image(nn.Module):
    """An image to an image: residual blocks, dilated pooling, transposed convolution."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(2, 6, 3, stride=2, padding=1)
        self.body = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(2))
        self.pool = nn.MaxPool2d((2, 3), 1, padding=(1, 1), dilation=(2, 1))
        self.tail = nn.ConvTranspose2d(6, 3, 3, stride=2, output_padding=1, bias=True)

    def forward(self, x):
        h = self.head(x)
        for conv in self.body:
            h = h + F.leaky_relu(conv(F.relu(h)), 0.2)
        return self.tail(self.pool(h))


class Line(nn.Module):
    """One dimension: convolutions, averages and a stack."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3, padding=1)
        self.up = nn.ConvTranspose1d(9, 4, 2, stride=2)
        self.register_buffer("mask", torch.rand(7) < 0.7)

    def forward(self, x):
        h = F.relu(self.conv(x))
        h = torch.stack([h, F.avg_pool1d(h, 3, 1, 1)], 2).flatten(1, 2)
        h = torch.cat([torch.where(self.mask, h, 0.7), torch.ones_like(h[:, :1])], 1)
        return F.pad(self.up(h).clamp(-0.3, 0.3), (1, 2), value=4.0).transpose(1, 2)


class Gated(nn.Module):
    """Smooth switches, whose frozen gates are not their derivatives."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 10), nn.Linear(10, 4)

    def forward(self, x):
        h = F.gelu(F.silu(self.a(x)))
        return torch.sigmoid(self.b(torch.tanh(h)))


def build(kind: type[nn.Module], seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A network with seeded weights and running statistics, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return here(model.to(dtype).eval())


INPUTS = {Spellings: (1, 3, 11, 10), Image: (1, 2, 9, 10), Line: (1, 3, 7), Gated: (1, 6)}

# Networks whose frozen system is their Jacobian: piecewise-linear units only.
PIECEWISE = [Spellings, Image, Line]


def example(kind: type[nn.Module], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return here(torch.randn(INPUTS[kind], generator=generator, dtype=torch.float64))
