"""Orthonormal rows that grow by blocks."""

from __future__ import annotations

import torch
from torch import Tensor


def orthonormal(
    x: Tensor, basis: Tensor, drop: float = 0.0, resolution: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """x = along basis + R rows, with rows orthonormal and orthogonal to `basis`: (rows, along, R).

    Directions that x has by no more than `drop` are left out; along and R come on the CPU. x is
    float64 and known to `resolution`: rows are orthogonal far below it, or else to rounding.

        rows, along, R = orthonormal(torch.randn(2, 9).double(), torch.empty(0, 9).double())
    """
    eps = torch.finfo(x.dtype).eps
    rows, R = x, torch.eye(len(x), dtype=x.dtype, device=x.device)
    along = x.new_zeros(len(x), len(basis))
    while True:
        longest = rows.norm(dim=1)
        back = rows @ basis.T
        along = along + R @ back
        Q, triangle = torch.linalg.qr((rows - back @ basis).T)
        left, sizes, right = torch.linalg.svd(triangle @ R.T)
        # No more rows than the space has left, whatever rounding says.
        kept = int((sizes[: basis.shape[1] - len(basis)] > drop).sum())
        rows, R = (Q @ left[:, :kept]).T, right[:kept].T * sizes[:kept]
        if kept == 0:
            break
        # Rounding leaves a part along the basis, which counts the more the shorter a row gets.
        shortest = torch.linalg.svdvals(triangle)[-1]
        if eps * longest.max() <= max(4 * eps, resolution / 100) * shortest:
            break
    return rows, along.cpu(), R.cpu()


def grown(basis: Tensor, rows: Tensor, capacity: int) -> Tensor:
    """basis and `rows` below it: in place where its memory has room, else in twice as much.

    Memory has room for `capacity` rows at most. `basis` is all that is in use of its memory, as
    what this returns is, or any tensor that is no part of another.

        V = grown(torch.empty(0, 9), torch.randn(2, 9), capacity=16)
    """
    before, size = basis.shape
    after = before + len(rows)
    room = basis.untyped_storage().nbytes() // (basis.itemsize * max(size, 1))
    if after > room:
        room = max(after, min(2 * after, capacity))
        memory = basis.new_empty(room, size)
        memory[:before] = basis
    else:
        memory = basis.as_strided((room, size), (size, 1))
    memory[before:after] = rows
    return memory[:after]
