"""Table 1 by counting: bytes kept for one image by DFV (float32 activations) and by the tape."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from linscope_cuda.replay import Record
from linscope_cuda.zoo import networks


def vgg19() -> nn.Module:
    """VGG-19's layers; its weights do not matter for counting."""
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    head = [nn.Flatten(), nn.Linear(25088, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU()]
    return nn.Sequential(*layers, *head, nn.Linear(4096, 1000))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "VGG-19, 224x224": (vgg19, (1, 3, 224, 224)),
    "CycleGAN-9, 256x256": (networks.CycleGAN, (1, 3, 256, 256)),
    "EDSR 32x256 x4, 480x270": (networks.EDSR, (1, 3, 270, 480)),
}


def run(device: torch.device, quick: bool = False) -> list[dict]:
    """A row per network: MB of activations and of the tape, and Table 1's GB per 1000 images.

    Counted on meta tensors: nothing is computed, so neither `device` nor `quick` matters.
    """
    rows = []
    for name, (build, shape) in NETWORKS.items():
        with torch.device("meta"):
            model, x0 = build().eval(), torch.empty(shape)
        record = Record(model)
        with torch.no_grad():
            record.run(model, x0)
        tape = record.tape
        units = [e for e in tape if "relu" in e.function]
        activations = 4 * sum(math.prod(e.sample_shape) for e in units)
        rows.append(
            {
                "network": name,
                "ReLU activations MB": activations / 1e6,
                "as in Table 1 GB": activations * 1000 / 1e6 / 1024,
                "tape MB": tape.nbytes / 1e6,
                "times smaller": activations / tape.nbytes,
            }
        )
    return rows
