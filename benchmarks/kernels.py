"""Each kernel on a doubled batch against its composition of torch functions, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from linscope_cuda.operators import reference

from . import eager
from .timing import give_back, timings

native = torch.ops.linscope

WINDOW = ([3, 3], [2, 2], [1, 1], [1, 1])


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
        "relu_scope": of(lambda x: native.relu_scope(x, 1, 0.0, False), eager.relu, x),
        "relu_frozen": Kernel(
            lambda x, bits: native.relu_frozen(x, bits, 0.0, False),
            (x, bits),
            lambda x, open: torch.where(open, x, 0),
            (x, open),
        ),
        "clamp_scope": of(lambda x: native.clamp_scope(x, 1, 0.0, 6.0, False), eager.clamp, x),
        "clamp_frozen": Kernel(
            lambda x, pieces: native.clamp_frozen(x, pieces, 0.0, 6.0, False),
            (x, pieces),
            torch.where,
            (inside, x, constant),
        ),
        "gate_scope": of(lambda x: native.gate_scope(x, 1, 0), eager.sigmoid, x),
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
            lambda x: native.max_pool2d_scope(x, 1, *WINDOW, False),
            lambda x: eager.max_pool(x, 3, 2, 1),
            x,
        ),
        "max_pool2d_frozen": Kernel(
            lambda x, winners: native.max_pool2d_frozen(x, winners, *WINDOW),
            (x, winners),
            eager.gather,
            (x, sources),
        ),
        "max_pool2d_frozen_transpose": Kernel(
            lambda u, winners: native.max_pool2d_frozen_transpose(u, winners, size, *WINDOW),
            (u, winners),
            eager.scatter,
            (u, sources, x),
        ),
        "instance_norm_scope": of(
            lambda x: native.instance_norm_scope(x, 1, None, None, 1e-5), eager.instance_norm, x
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
    """A row per kernel, size and number of probes: milliseconds, bytes per second over the fewest
    that it must move, their share of those of a copy on the device, and how many times faster it is
    than its peers.

    Sizes go from a cache's to main memory's, with one probe; more probes at the largest. Results
    are compared first. `quick` compiles the peers without generating code.
    """
    cuda = device.type == "cuda"
    if quick:
        cases = [(1, 64), (4, 8)]
    else:
        large = 1024 if cuda else 256
        cases = [(1, large // 64), (1, large // 8), (1, large), (4, large), (16, large)]
    rows = []
    for probes, height in cases:
        rows += _case(device, probes, height, quick)
    return rows


def _case(device: torch.device, probes: int, height: int, quick: bool) -> list[dict]:
    torch.compiler.reset()
    cuda = device.type == "cuda"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1 + probes, 64, height, 512, generator=generator).to(device)
    # Many calls are timed together, so that starting them on a GPU, or the clock, does not count.
    rounds = 3 if quick else 21
    repeats = 1 if quick else 20 if cuda else max(1, 2**26 // x.nbytes)
    target = torch.empty_like(x)
    rows = []
    for name, kernel in kernels(x).items():
        give_back()
        peer = torch.compile(kernel.eager, backend="eager" if quick else "inductor", dynamic=False)
        result = tensors(kernel.fused(*kernel.fused_reads))
        wanted = tensors(kernel.eager(*kernel.eager_reads))[0].view_as(result[0])
        torch.testing.assert_close(result[0], wanted, rtol=1e-4, atol=1e-4)
        taken = timings(
            {
                "fused": lambda k=kernel: k.fused(*k.fused_reads),
                "eager": lambda k=kernel: k.eager(*k.eager_reads),
                "compiled": lambda k=kernel, f=peer: f(*k.eager_reads),
                "copy": lambda: target.copy_(x),
            },
            rounds,
            repeats,
            limit=4,
            warming=8,
        )
        fused = taken["fused"].median
        speed = sum(t.nbytes for t in (*kernel.fused_reads, *result)) / fused / 1e9
        copied = 2 * x.nbytes / taken["copy"].median / 1e9
        rows.append(
            {
                "kernel": name,
                "probes": probes,
                "MB": x.nbytes / 1e6,
                "ms": 1e3 * fused,
                "spread": taken["fused"].spread,
                "GB/s": speed,
                "of a copy": speed / copied,
                "times eager": taken["eager"].median / fused,
                "times compiled": taken["compiled"].median / fused,
            }
        )
    return rows
