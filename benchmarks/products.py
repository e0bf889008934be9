"""F v and F^T u of networks: tape, doubled batch, recorded activations (DFV), plain passes.

Plain is what torch itself takes: a forward pass for F v, a forward and a backward pass with frozen
weights for F^T u.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import linscope_cuda as ls
from linscope_cuda.zoo import networks

from .dfv import DFV
from .storage import vgg19
from .timing import seconds

Build = Callable[[], nn.Module]

NETWORKS: dict[str, tuple[Build, tuple[int, ...]]] = {
    "SqueezeNet 1.1, 227x227": (networks.SqueezeNet, (3, 227, 227)),
    "VGG-19, 224x224": (vgg19, (3, 224, 224)),
    "EDSR-baseline x2, 96x96": (networks.EDSR.baseline, (3, 96, 96)),
    "CycleGAN-9, 128x128": (networks.CycleGAN, (3, 128, 128)),
}
SMALL: dict[str, tuple[Build, tuple[int, ...]]] = {
    "PixelShuffle-4 x3, 24x24": (lambda: networks.PixelShuffle4(3), (3, 24, 24))
}


def run(device: torch.device, quick: bool = False) -> list[dict]:
    """A row per network, batch and product: milliseconds of each way, and the bytes each keeps."""
    rows = []
    for name, (build, shape) in (SMALL if quick else NETWORKS).items():
        torch.manual_seed(0)
        model = _carrying(build()).eval().requires_grad_(False).to(device)
        for batch, rounds in ((1, 3), (2, 3)) if quick else ((1, 15), (8, 7)):
            rows += _network(name, model, torch.randn(1, *shape).to(device), batch, rounds)
    return rows


def _carrying(model: nn.Module) -> nn.Module:
    """Weights that hand signals on at their size, as trained ones do; torch's own let them fade."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return model


def _network(name: str, model: nn.Module, x0: Tensor, batch: int, rounds: int) -> list[dict]:
    tape = ls.LinearInterpreter(model, x0)
    doubled, dfv = ls.LinearInterpreter(model, x0, storage="none"), DFV(model, x0)
    tape.max_batch = doubled.max_batch = batch
    _ = doubled.residual
    x = torch.randn(batch, *x0.shape[1:]).to(x0)
    u = torch.randn(batch, *tape.output_shape).to(x0)
    for peer in (doubled, dfv):  # correct first
        for product, probe in (("filter", x), ("transpose", u)):
            got, want = getattr(peer, product)(probe), getattr(tape, product)(probe)
            error = (got - want).norm() / want.norm()
            assert error < 1e-3, f"{name}: {product} differs by {error:.1e}"

    def forward():
        with torch.no_grad():
            return model(x)

    def backward():
        probe = x.clone().requires_grad_()
        return torch.autograd.grad(model(probe), probe, u)

    kept = {"tape KB": tape.tape.nbytes / 1e3, "DFV KB": dfv.nbytes / 1e3}
    rows = []
    for product, probe, plain in (("filter", x, forward), ("transpose", u, backward)):
        ways = {"tape": tape, "doubled batch": doubled, "DFV": dfv}
        candidates = {w: partial(getattr(op, product), probe) for w, op in ways.items()}
        taken = seconds({**candidates, "plain": plain}, rounds)
        times = {f"{w} ms": 1e3 * t for w, t in taken.items()}
        share = taken["tape"] / taken["plain"]
        row = {"network": name, "batch": batch, "product": product, **times}
        rows.append({**row, "tape of plain": share, **kept})
    return rows
