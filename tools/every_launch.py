"""Launches every operator on a GPU at awkward sizes, and compares with the CPU: something short to
run under compute-sanitizer.

    compute-sanitizer --tool memcheck --error-exitcode 1 python tools/every_launch.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from torch import Tensor

import linscope_cuda as ls  # noqa: F401 (registers the operators)

native = torch.ops.linscope

# channels, height, width; the last is in several chunks.
SHAPES = [(3, 5, 7), (8, 14, 12), (24, 16, 16), (2, 160, 128)]
WINDOWS = [
    ([2, 2], [2, 2], [0, 0], [1, 1]),
    ([3, 3], [2, 2], [1, 1], [1, 1]),
    ([3, 2], [1, 2], [1, 0], [2, 1]),
]
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def results(x: Tensor, references: int) -> Iterator[tuple[str, Tensor]]:
    """What every operator makes of a batch, and of decisions on it."""
    last = not x.is_contiguous()
    g = x.flip(0).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    y, bits = native.relu_scope(x, references, 0.1, last)
    yield from {"relu_scope": y, "bits": bits}.items()
    yield "relu_frozen", native.relu_frozen(g, bits, 0.1, last)
    y, pieces = native.clamp_scope(x, references, -0.5, 0.5, last)
    yield from {"clamp_scope": y, "pieces": pieces}.items()
    yield "clamp_frozen", native.clamp_frozen(g, pieces, -0.5, 0.5, last)
    for kind in range(5):
        y, gate = native.gate_scope(x, references, kind)
        yield from {"gate_scope": y, "gate": gate}.items()
        yield "gate_scope_backward", native.gate_scope_backward(g, x, references, kind)
    yield "gate_frozen", native.gate_frozen(g, gate, 0.5)
    y, mean, rstd = native.instance_norm_scope(x, references, None, None, 1e-3)
    yield from {"instance_norm_scope": y, "mean": mean, "rstd": rstd}.items()
    yield "instance_norm_frozen", native.instance_norm_frozen(g, mean, rstd, None)
    names = "instance_norm_scope_backward", "sum_g", "sum_gx"
    made = native.instance_norm_scope_backward(g, x, mean, rstd, None)
    yield from zip(names, made, strict=True)
    for window in WINDOWS:
        y, winners = native.max_pool2d_scope(x, references, *window, False)
        yield from {"max_pool2d_scope": y, "winners": winners}.items()
        yield "max_pool2d_frozen", native.max_pool2d_frozen(g, winners, *window)
        size = list(x.shape[2:])
        transposed = native.max_pool2d_frozen_transpose(y, winners, size, *window)
        yield "max_pool2d_frozen_transpose", transposed


def main() -> int:
    generator, wrong, count = torch.Generator().manual_seed(0), 0, 0
    for shape in SHAPES:
        for dtype in DTYPES:
            for last in (False, True):
                format = torch.channels_last if last else torch.contiguous_format
                x = torch.randn(6, *shape, generator=generator).to(dtype, memory_format=format)
                tolerance = {8: 1e-9, 4: 1e-3, 2: 5e-2}[x.element_size()]
                pairs = zip(results(x.cuda(), 2), results(x, 2), strict=True)
                for (name, found), (_, wanted) in pairs:
                    count += 1
                    found = found.cpu().double()
                    exact = not wanted.dtype.is_floating_point
                    far = (found - wanted.double()).abs() > (0 if exact else tolerance) * (
                        1 + wanted.double().abs()
                    )
                    if far.any():
                        wrong += 1
                        print(f"{name} differs: {shape}, {dtype}, channels_last {last}")
    print(f"{count} results, {wrong} of them not those of the CPU")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
