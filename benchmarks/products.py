"""F v and F^T u of networks: tape, doubled batch, recorded activations (DFV), plain passes."""

from __future__ import annotations

from functools import partial

import torch

import linscope_cuda as ls
from linscope_cuda.zoo import networks

from .dfv import DFV
from .timing import seconds

NETWORKS = {
    "EDSR-baseline x2, 96x96": (lambda: networks.EDSR.baseline(scale=2), (1, 3, 96, 96)),
    "CycleGAN-9, 128x128": (lambda: networks.CycleGAN(), (1, 3, 128, 128)),
    "SqueezeNet 1.1, 227x227": (lambda: networks.SqueezeNet(), (1, 3, 227, 227)),
}
SMALL = {"PixelShuffle-4 x3, 24x24": (lambda: networks.PixelShuffle4(3), (1, 3, 24, 24))}


def run(device: torch.device, quick: bool = False) -> list[dict]:
    """A row per network and product: milliseconds of each way, and the bytes each keeps for x0."""
    rows = []
    for name, (build, shape) in (SMALL if quick else NETWORKS).items():
        torch.manual_seed(0)
        model = build().eval().requires_grad_(False).to(device)
        rows += _network(name, model, torch.randn(shape).to(device), 3 if quick else 9)
    return rows


def _network(name: str, model: torch.nn.Module, x0: torch.Tensor, rounds: int) -> list[dict]:
    tape = ls.LinearInterpreter(model, x0)
    doubled, dfv = ls.LinearInterpreter(model, x0, storage="none"), DFV(model, x0)
    _ = doubled.residual
    x, u = torch.randn_like(x0), torch.randn_like(tape.output)
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
        rows.append({"network": name, "product": product, **times, **kept})
    return rows
