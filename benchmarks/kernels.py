"""Each kernel on a doubled batch against its composition of torch functions, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from linscope_cuda import reference

from .timing import seconds

native = torch.ops.linscope

WINDOW = ([3, 3], [2, 2], [1, 1], [1, 1])


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


def eager_gather(x: Tensor, sources: Tensor) -> Tensor:
    return x.flatten(2).gather(2, sources.flatten(2).expand(len(x), -1, -1))


def eager_scatter(u: Tensor, sources: Tensor, x: Tensor) -> Tensor:
    places = sources.flatten(2).expand(len(u), -1, -1)
    return torch.zeros_like(x).flatten(2).scatter_add(2, places, u.flatten(2)).view_as(x)


class Kernel(NamedTuple):
    """A kernel's call and its peer's, each with what it reads."""

    fused: Callable[..., Any]
    fused_reads: tuple[Tensor, ...]
    eager: Callable[..., Any]
    eager_reads: tuple[Tensor, ...]


def kernels(x: Tensor) -> dict[str, Kernel]:
    """Every operator for the doubled batch x; decisions are made beforehand, each in its form."""
    x0 = x[:1]
    _, bits = native.relu_scope(x0, 1, 0.0, False)
    _, pieces = native.clamp_scope(x0, 1, 0.0, 6.0, False)
    open, inside, constant = x0 > 0, (x0 > 0) & (x0 < 6), F.relu6(x0)
    _, gate = native.gate_scope(x0, 1, 0)
    u, winners = native.max_pool2d_scope(x, 1, *WINDOW, False)
    size = list(x.shape[2:])
    sources = F.max_pool2d(x0, 3, 2, 1, return_indices=True)[1]
    _, mean, rstd = native.instance_norm_scope(x0, 1, None, None, 1e-5)
    planes = mean[..., None, None], rstd[..., None, None]
    statistics = mean, rstd
    g = x.flip(0)

    def of(fused: Callable, eager: Callable, *reads: Tensor) -> Kernel:
        return Kernel(fused, reads, eager, reads)

    return {
        "relu_scope": of(lambda x: native.relu_scope(x, 1, 0.0, False), eager_relu, x),
        "relu_frozen": Kernel(
            lambda x, bits: native.relu_frozen(x, bits, 0.0, False),
            (x, bits),
            lambda x, open: torch.where(open, x, 0),
            (x, open),
        ),
        "clamp_scope": of(lambda x: native.clamp_scope(x, 1, 0.0, 6.0, False), eager_clamp, x),
        "clamp_frozen": Kernel(
            lambda x, pieces: native.clamp_frozen(x, pieces, 0.0, 6.0, False),
            (x, pieces),
            torch.where,
            (inside, x, constant),
        ),
        "gate_scope": of(lambda x: native.gate_scope(x, 1, 0), eager_sigmoid, x),
        "gate_frozen": of(
            lambda x, gate: native.gate_frozen(x, gate, 0.5),
            lambda x, gate: gate * x + 0.5,
            x,
            gate,
        ),
        "gate_scope_backward": of(
            lambda g, x: native.gate_scope_backward(g, x, 1, 0),
            lambda g, x: reference.gate_scope_backward(g, x, 1, 0),
            g,
            x,
        ),
        "max_pool2d_scope": of(
            lambda x: native.max_pool2d_scope(x, 1, *WINDOW, False), eager_max_pool, x
        ),
        "max_pool2d_frozen": Kernel(
            lambda x, winners: native.max_pool2d_frozen(x, winners, *WINDOW),
            (x, winners),
            eager_gather,
            (x, sources),
        ),
        "max_pool2d_frozen_transpose": Kernel(
            lambda u, winners: native.max_pool2d_frozen_transpose(u, winners, size, *WINDOW),
            (u, winners),
            eager_scatter,
            (u, sources, x),
        ),
        "instance_norm_scope": of(
            lambda x: native.instance_norm_scope(x, 1, None, None, 1e-5), eager_instance_norm, x
        ),
        "instance_norm_frozen": Kernel(
            lambda x, mean, rstd: native.instance_norm_frozen(x, mean, rstd, None),
            (x, *statistics),
            lambda x, mean, rstd: (x - mean) * rstd,
            (x, *planes),
        ),
        "instance_norm_scope_backward": of(
            lambda g, x, m, s: native.instance_norm_scope_backward(g, x, m, s, None),
            lambda g, x, m, s: reference.instance_norm_scope_backward(g, x, m, s, None),
            g,
            x,
            *statistics,
        ),
    }


def tensors(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def run(device: torch.device, quick: bool = False) -> list[dict]:
    """A row per kernel: milliseconds, bytes per second over the fewest that it must move, their
    share of those of a copy on the device, and how many times faster it is than its peers.

    Results are compared first. `quick` compiles the peers without generating code.
    """
    cuda = device.type == "cuda"
    rows_of_pixels = 64 if quick else 1024 if cuda else 256
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 64, rows_of_pixels, 512, generator=generator).to(device)
    # On a GPU many calls are timed together, so that starting them does not count.
    rounds, repeats = (3, 1) if quick else (9, 20) if cuda else (9, 1)
    target = torch.empty_like(x)
    copy = seconds({"copy": lambda: target.copy_(x)}, rounds, repeats)["copy"]
    copied = 2 * x.nbytes / copy / 1e9
    rows = []
    for name, kernel in kernels(x).items():
        peer = torch.compile(kernel.eager, backend="eager" if quick else "inductor")
        result = tensors(kernel.fused(*kernel.fused_reads))
        wanted = tensors(kernel.eager(*kernel.eager_reads))[0].view_as(result[0])
        torch.testing.assert_close(result[0], wanted, rtol=1e-4, atol=1e-4)
        taken = seconds(
            {
                "fused": lambda k=kernel: k.fused(*k.fused_reads),
                "eager": lambda k=kernel: k.eager(*k.eager_reads),
                "compiled": lambda k=kernel, f=peer: f(*k.eager_reads),
            },
            rounds,
            repeats,
        )
        moved = sum(t.nbytes for t in (*kernel.fused_reads, *result))
        speed = moved / taken["fused"] / 1e9
        rows.append(
            {
                "kernel": name,
                "ms": 1e3 * taken["fused"],
                "GB/s": speed,
                "of a copy": speed / copied,
                "times eager": taken["eager"] / taken["fused"],
                "times compiled": taken["compiled"] / taken["fused"],
            }
        )
    return rows
