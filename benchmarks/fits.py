"""The largest input of the paper's large EDSR whose F^T u fits in memory."""

from __future__ import annotations

import os
from unittest.mock import patch

import numpy as np
import torch

from .memory import in_a_fresh_process, reset, resident
from .networks import edsr
from .ways import WAYS

GIGABYTES = (4, 8, 16)
TRANSPOSED = ("tape", "autograd", "DFV in memory")


def highest(way: str, side: int) -> int:
    """The most bytes that this process takes for F^T u, everything counted."""
    model, x0 = edsr(side, side).make()
    reset()
    transpose = WAYS[way].make(model, x0, 1).transpose
    transpose(torch.randn(1, 3, 4 * side, 4 * side))
    return resident("VmHWM")


def run(device: torch.device, quick: bool = False) -> list[dict]:
    """A row per way: bytes per pixel of the input, and the pixels that fit in 4, 8 and 16 GB, on
    the line through the peaks of two measured sizes, which a third must confirm to 10 %.

    Measured is the process, on the CPU, with tensors in mappings of their own, as glibc gives to
    all of 32 MB and more: at the sizes that fit, to every activation.
    """
    sides = (8, 12, 16) if quick else (40, 72, 56)
    rows: list[dict] = []
    for way in TRANSPOSED[: 1 if quick else None]:
        with patch.dict(os.environ, MALLOC_MMAP_THRESHOLD_="1000000"):
            peaks = [in_a_fresh_process(highest, way, side) for side in sides]
        slope, fixed = np.polyfit([side**2 for side in sides[:2]], peaks[:2], 1)
        off = (fixed + slope * sides[2] ** 2) / peaks[2] - 1
        if not quick and abs(off) > 0.1:
            raise RuntimeError(f"{way}: the third size is {off:.0%} off the line")
        pixels = {f"pixels in {g} GB": _pixels(g * 1e9 - fixed, slope) for g in GIGABYTES}
        rows.append({"way": way, "MB at 0 pixels": fixed / 1e6, "bytes per pixel": slope, **pixels})
    return rows


def _pixels(bytes_left: float, slope: float) -> int:
    return int(bytes_left / slope) if slope > 0 else 0
