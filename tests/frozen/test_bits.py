"""A program gives what the network's own Python gives by the tape, in float64: bit for bit for one
probe; matrix products of several are rounded otherwise than those of one.
"""

from collections.abc import Callable

import pytest
import torch
from families import build as family
from families import image
from networks import INPUTS, example
from networks import build as small
from test_torchvision import SIZES
from torch import Tensor, nn

import linscope_cuda as ls
from linscope_cuda.capture.replay import Replay
from linscope_cuda.zoo import networks as zoo

ZOO: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "SqueezeNet": (zoo.SqueezeNet, 64),
    "EfficientNet-Lite0": (zoo.EfficientNetLite0, 64),
    "CycleGAN": (lambda: zoo.CycleGAN(2, 8), 20),
    "EDSR": (lambda: zoo.EDSR(2, 8, 3), 9),
    "PixelShuffle-4": (lambda: zoo.PixelShuffle4(3), 11),
    "style": (zoo.StyleTransfer, 24),
    "HED": (zoo.HED, 32),
    "UpConv-7": (zoo.UpConv7, 24),
}
NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    **{n: lambda n=n, s=s: (family(n, s[0]), image(s[0], torch.float64)) for n, s in SIZES.items()},
    **{n: lambda b=b, s=s: (b().eval(), image(s, torch.float64)) for n, (b, s) in ZOO.items()},
    **{k.__name__: lambda k=k: (small(k), example(k)) for k in INPUTS},
}


def reenacted(op: ls.LinearInterpreter, x: Tensor) -> Tensor:
    """Probe by probe: the tape is of one sample."""
    runs = [Replay(op.model, op.tape, op.policy).run(op.network, part) for part in x.split(1)]
    return torch.cat(runs)


def near(found: Tensor, want: Tensor, size: float = 0) -> bool:
    """To rounding of what is wanted, or of larger terms that it is the sum of."""
    return bool((found - want).norm() <= 1e-14 * max(float(want.norm()), size))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_is_the_network_reenacted(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x0 = NETWORKS[name]()
    op = ls.LinearInterpreter(model.double().requires_grad_(False), x0, fold=False, check=False)
    generator = torch.Generator().manual_seed(1)
    for count in (1, 2, 7):
        x = torch.randn(count, *op.input_shape, generator=generator, dtype=torch.float64)
        u = torch.randn(count, *op.output_shape, generator=generator, dtype=torch.float64)
        x.requires_grad_()
        y = reenacted(op, x)
        (back,) = torch.autograd.grad(y, x, u)
        x, y = x.detach(), y.detach()
        found = op.program(x)
        assert torch.equal(found, y) if count == 1 else near(found, y)
        assert near(op.transpose(u), back)  # what comes back by several ways: in another order
        assert near(op(x), y, size=float(op.filter(x).norm() + op.residual.norm()))
        assert near(op.program.T.T(x), op.filter(x))
