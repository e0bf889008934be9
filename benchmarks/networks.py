"""The networks that are measured, with seeded weights: time and memory do not depend on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from linscope_cuda.zoo import networks as zoo


class Network(NamedTuple):
    """How to build a network, and its input's (channels, height, width)."""

    build: Callable[[], nn.Module]
    shape: tuple[int, int, int]

    def make(self, device: torch.device | str = "cpu") -> tuple[nn.Module, Tensor]:
        """The frozen network in evaluation mode, and an input."""
        torch.manual_seed(0)
        model = _carrying(self.build()).eval().requires_grad_(False)
        _settle_batch_norms(model, self.shape)
        return model.to(device), torch.randn(1, *self.shape).to(device)


def _carrying(model: nn.Module) -> nn.Module:
    """Weights that hand signals on at their size, as trained ones do; torch's own let them fade."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return model


@torch.no_grad()
def _settle_batch_norms(model: nn.Module, shape: tuple[int, int, int], batches: int = 2) -> None:
    """Running statistics of random inputs; without them signals grow or fade with depth."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over batches
        norm.reset_running_stats()
        norm.train()  # it alone: dropped units would count
    for _ in range(batches if norms else 0):
        model(torch.randn(8, *shape))
    model.eval()


def vgg19() -> nn.Module:
    """VGG-19 (Simonyan and Zisserman 2015)."""
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    head = [nn.Flatten(), nn.Linear(25088, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU()]
    return nn.Sequential(*layers, *head, nn.Linear(4096, 1000))


SQUEEZENET = Network(zoo.SqueezeNet, (3, 227, 227))
VGG19 = Network(vgg19, (3, 224, 224))
EDSR_BASELINE = Network(zoo.EDSR.baseline, (3, 96, 96))
PIXELSHUFFLE = Network(lambda: zoo.PixelShuffle4(3), (3, 24, 24))


def cyclegan(side: int) -> Network:
    return Network(zoo.CycleGAN, (3, side, side))


def torchvision(name: str, side: int) -> Network:
    """A classifier of torchvision; building it raises ModuleNotFoundError without torchvision."""

    def build() -> nn.Module:
        from torchvision.models import get_model

        return get_model(name)

    return Network(build, (3, side, side))


def edsr(height: int, width: int) -> Network:
    """The paper's large EDSR: 32 blocks of 256 features, x4."""
    return Network(zoo.EDSR, (3, height, width))


# Where the quick run measures: all kinds of layers, small.
SMALL = {
    "PixelShuffle-4 x3, 24x24": PIXELSHUFFLE,
    "SqueezeNet 1.1, 67x67": Network(zoo.SqueezeNet, (3, 67, 67)),
    "CycleGAN-1, 16x16": Network(lambda: zoo.CycleGAN(1, 8), (3, 16, 16)),
}


class NoSuchNetwork(LookupError):
    """No network that a benchmark measures has a name with these words."""


def chosen(networks: Mapping[str, Network], words: str) -> dict[str, Network]:
    """The networks whose names contain the words, in any case; NoSuchNetwork if none does."""
    found = {name: n for name, n in networks.items() if words.lower() in name.lower()}
    if not found:
        raise NoSuchNetwork(f"no network is called {words!r}; there are {'; '.join(networks)}")
    return found
