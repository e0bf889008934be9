"""The 10 largest singular values: samples and sequential passes of each method and of scipy."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import svds

import linscope_cuda as ls

# Networks of the zoo (the first there is), the picture's side, and whether it is a crop: a
# super-resolution network is meant for pictures at their own size.
NETWORKS: dict[str, tuple[tuple[str, ...], int, bool]] = {
    "PixelShuffle-4 x3, 48x48": (("pixelshuffle4_x3",), 48, True),
    "upconv7 x2, 48x48": (("upconv7_photo",), 48, True),
    "CycleGAN, 64x64": (("cyclegan_vintage", "cyclegan-random"), 64, False),
}
SMALL = {"PixelShuffle-4 x3, 12x12": (("pixelshuffle4_x3",), 12, True)}

# What the values may differ by from scipy's, over sigma_1; the literal method has no tolerance.
EQUAL = {"scipy svds": 0.0, "lanczos": 2e-6, "paper": 1e-3, "paper-literal": float("inf")}


def run(device: torch.device, quick: bool = False) -> list[dict]:
    """A row per network and method, the values checked to be equal first.

    scipy has its defaults; "lanczos" tol 1e-5, "paper" 1e-3 as the paper needs no better, and
    "paper-literal" its 100 steps.
    """
    rows = []
    for label, (names, side, crop) in (SMALL if quick else NETWORKS).items():
        name = next((n for n in names if n in ls.zoo.names()), None)
        if name is not None:
            rows += _network(f"{label} ({name})", _operator(name, side, crop, device), quick)
    return rows


def _operator(name: str, side: int, crop: bool, device: torch.device) -> ls.LinearInterpreter:
    network, picture = ls.zoo.load(name), ls.zoo.photo("cat").image
    if crop:
        left, top = ((extent - side) // 2 for extent in picture.size)
        picture = picture.crop((left, top, left + side, top + side))
    else:
        picture = picture.resize((side, side))
    return ls.LinearInterpreter(network.model.to(device), network.preprocess(picture).to(device))


def _network(label: str, op: ls.LinearInterpreter, quick: bool) -> list[dict]:
    k = 4 if quick else 10

    def scipy() -> tuple[np.ndarray, int, int]:
        before = op.passes
        _, S, _ = svds(op.to_scipy(), k=k, rng=np.random.default_rng(0))
        # One vector at a time.
        return np.sort(S)[::-1].astype(float), op.passes - before, op.passes - before

    def ours(method: str, **options) -> Callable[[], tuple[np.ndarray, int, int]]:
        def solve() -> tuple[np.ndarray, int, int]:
            found = ls.svd(op, k, method, progress=False, **options)
            return found.S.double().cpu().numpy(), found.passes, found.sequential

        return solve

    methods = {
        "scipy svds": scipy,
        "lanczos": ours("lanczos", tol=1e-5),
        "paper": ours("paper", tol=1e-3),
        "paper-literal": ours("paper-literal"),
    }
    rows, true, peer = [], np.zeros(k), (1, 1)
    for method, solve in methods.items():
        start = time.perf_counter()
        S, samples, sequential = solve()
        seconds = time.perf_counter() - start
        if method == "scipy svds":
            true, peer = S, (samples, sequential)
        error = float(np.abs(S - true).max() / true[0])
        assert error <= EQUAL[method], f"{label}: {method} differs from scipy by {error:.1e}"
        rows.append(
            {
                "network": label,
                "method": method,
                "samples": samples,
                "over scipy's": samples / peer[0],
                "in sequence": sequential,
                "part of scipy's": sequential / peer[1],
                "differs by": error,
                "seconds": seconds,
            }
        )
    return rows
