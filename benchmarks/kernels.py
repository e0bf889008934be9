"""Each scope on a doubled batch of 64 MB against its composition of eager torch functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from linscope_cuda import ops

from .timing import seconds


def eager_relu(x: Tensor) -> Tensor:
    x0, x1 = x.chunk(2)
    return torch.cat([x0.relu(), torch.where(x0 > 0, x1, 0)])


def eager_clamp(x: Tensor) -> Tensor:
    x0, x1 = x.chunk(2)
    y0 = F.relu6(x0)
    return torch.cat([y0, torch.where((x0 > 0) & (x0 < 6), x1, y0)])


def eager_sigmoid(x: Tensor) -> Tensor:
    x0, x1 = x.chunk(2)
    gate = torch.where(x0 == 0, 0.25, torch.tanh(x0 / 2) / (2 * x0))
    return torch.cat([x0.sigmoid(), gate * x1 + 0.5])


def eager_max_pool(x: Tensor) -> Tensor:
    x0, x1 = x.chunk(2)
    y0, winners = F.max_pool2d(x0, 3, 2, 1, return_indices=True)
    return torch.cat([y0, x1.flatten(2).gather(2, winners.flatten(2)).view_as(y0)])


def eager_instance_norm(x: Tensor) -> Tensor:
    x0, x1 = x.chunk(2)
    variance, mean = torch.var_mean(x0, (2, 3), correction=0, keepdim=True)
    scale = (variance + 1e-5).rsqrt()
    return torch.cat([(x0 - mean) * scale, (x1 - mean) * scale])


SCOPES = {
    "relu": (eager_relu, lambda x: ops.relu_scope(x)[0]),
    "clamp": (eager_clamp, lambda x: ops.clamp_scope(x)[0]),
    "sigmoid": (eager_sigmoid, lambda x: ops.gate_scope(x)[0]),
    "max_pool2d": (eager_max_pool, lambda x: ops.max_pool2d_scope(x, 1, 3, 2, 1)[0]),
    "instance_norm": (eager_instance_norm, lambda x: ops.instance_norm_scope(x)[0]),
}


def run(device: torch.device, quick: bool = False) -> list[dict]:
    """A row per scope: milliseconds of eager and fused, and their ratio; results checked first."""
    side = 64 if quick else 256
    x = torch.randn(2, 64, side, 2 * side, generator=torch.Generator().manual_seed(0)).to(device)
    rows = []
    for name, (eager, fused) in SCOPES.items():
        torch.testing.assert_close(fused(x), eager(x), rtol=1e-4, atol=1e-4)
        taken = seconds(
            {"eager": lambda f=eager: f(x), "fused": lambda f=fused: f(x)}, 3 if quick else 15
        )
        rows.append(
            {
                "scope": name,
                "eager ms": 1e3 * taken["eager"],
                "fused ms": 1e3 * taken["fused"],
                "times faster": taken["eager"] / taken["fused"],
            }
        )
    return rows
