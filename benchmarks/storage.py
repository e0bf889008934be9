"""Table 1 by counting: bytes kept for one image by DFV (float32 activations), by autograd's graphs,
eager and through the doubled batch, and by the tape.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from linscope_cuda.capture.record import Record
from linscope_cuda.zoo import networks

from . import eager
from .networks import vgg19

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "VGG-19, 224x224": (vgg19, (1, 3, 224, 224)),
    "CycleGAN-9, 256x256": (networks.CycleGAN, (1, 3, 256, 256)),
    "EDSR 32x256 x4, 480x270": (networks.EDSR, (1, 3, 270, 480)),
    "EDSR-baseline x2, 96x96": (networks.EDSR.baseline, (1, 3, 96, 96)),
    "SqueezeNet 1.1, 227x227": (networks.SqueezeNet, (1, 3, 227, 227)),
    "EfficientNet-Lite0, 224x224": (networks.EfficientNetLite0, (1, 3, 224, 224)),
    "HED, 256x256": (networks.HED, (1, 3, 256, 256)),
    "upconv7 x2, 128x128": (networks.UpConv7, (1, 3, 128, 128)),
    "PixelShuffle-4 x3, 128x128": (lambda: networks.PixelShuffle4(3), (1, 3, 128, 128)),
}
TORCHVISION = {"alexnet": 224, "resnet18": 224, "resnet152": 224, "densenet161": 224}


def _networks() -> dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]:
    try:
        from torchvision.models import get_model
    except ModuleNotFoundError:
        return NETWORKS
    return NETWORKS | {
        f"{name}, {side}x{side}": (lambda name=name: get_model(name), (1, 3, side, side))
        for name, side in TORCHVISION.items()
    }


def saved(model: nn.Module, x: Tensor) -> int:
    """Bytes that autograd keeps for the gradient by x, weights not counted; shared memory once."""
    own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}
    alive = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        alive.append(tensor)
        if storage._cdata not in own:
            sizes[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model(x.detach().requires_grad_())
    return sum(sizes.values())


def run(device: torch.device, quick: bool = False) -> list[dict]:
    """A row per network: MB of each record, and Table 1's GB per 1000 images.

    Counted on meta tensors: nothing is computed, so neither `device` nor `quick` matters.
    """
    rows = []
    for name, (build, shape) in _networks().items():
        with torch.device("meta"):
            model, x0 = build().eval().requires_grad_(False), torch.empty(shape)
        record = Record(model)
        with torch.no_grad():
            record.run(model, x0)
        tape = record.tape
        units = [e for e in tape if "relu" in e.function or "hardtanh" in e.function]
        activations = 4 * sum(math.prod(e.sample_shape) for e in units)
        rows.append(
            {
                "network": name,
                "ReLU activations MB": activations / 1e6,
                "as in Table 1 GB": activations * 1000 / 1e6 / 1024,
                "autograd MB": saved(model, x0) / 1e6,
                "doubled batch MB": saved(eager.patched(model), torch.cat([x0, x0])) / 1e6,
                "tape MB": tape.nbytes / 1e6,
                "times smaller": activations / tape.nbytes,
            }
        )
    return rows
