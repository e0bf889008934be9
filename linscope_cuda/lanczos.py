"""Thick-restart block Golub-Kahan-Lanczos bidiagonalisation, a method of `svd`.

With A = F, or F^T where that is the taller, two orthonormal bases grow by a block at a time:

    A V = U B,    A^T U = V B^T + P T^T,

P the next block of V; all are kept as rows. Each block is projected off all before it, twice, so
that B is what A is between the bases and not what a recurrence says. B's singular triplets give
those of F, and what each lacks is its row of T. A full basis is cut to its best triplets, which
satisfy the same two lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .svd import Problem

# Samples per network pass: enough to fill a processor, few enough to let the basis learn.
BLOCK = 8
# Rows of the bases before a restart: beyond, B's own SVD costs more than it saves.
_ROWS = 256


@dataclass
class _Basis:
    """Both bases, what A is between them (B, on the CPU), the next block and what leads to it."""

    V: Tensor
    U: Tensor
    B: Tensor
    P: Tensor
    T: Tensor

    def triplets(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """left, S, right of B as rows, largest first, and |A^T u - s v| of each."""
        left, S, right = torch.linalg.svd(self.B, full_matrices=False)
        return left.T, S, right, (left.T @ self.T).norm(dim=1)


def lanczos(problem: Problem) -> tuple[Tensor, Tensor]:
    """Orthonormal rows that span the k leading left and right singular vectors."""
    N, n = problem.op.shape
    small, large = min(N, n), max(N, n)
    A, At = problem.filter, problem.transpose
    if n > N:
        A, At = At, A
    block = min(problem.block or BLOCK, small)
    capacity = min(small, max(_ROWS, 4 * problem.k, problem.k + 4 * block))
    start, _, _ = orthonormal(problem.random_rows(block, small), problem.empty(small), 0.0)
    zero = torch.zeros(0, 0, dtype=torch.float64)
    basis = _Basis(problem.empty(small), problem.empty(large), zero, start, zero)
    scale, iteration, trial_until, settled = 0.0, 0, 0, None
    while True:
        if len(basis.U) + len(basis.P) > capacity:
            _restart(basis, max(problem.k, (problem.k + capacity) // 2))
        scale = _extend(basis, A, At, 10 * problem.resolution, scale)
        iteration += 1
        _, S, _, errors = basis.triplets()
        done = _leading(S, errors, problem) if len(basis.P) else problem.k
        at = min(done, problem.k - 1, len(S) - 1)
        sigma, error = (S[at].item(), errors[at].item() / S[0].item()) if len(S) else (0.0, 0.0)
        problem.report(at + 1, iteration, sigma, error)
        if problem.passes + 2 * (len(basis.P) + problem.k) > problem.max_passes:
            break
        on_trial = iteration < trial_until and len(basis.P) > 0
        if done == problem.k and not on_trial:
            found = S[: problem.k]
            if settled is None:
                hidden = _copies_may_hide(basis, found, block, problem)
            else:
                hidden = not _same(found, settled, problem.tol)
            # Rows that know nothing of the old ones get as long as those had to show more copies.
            if not hidden or not _widen(basis, problem, block):
                break
            settled, trial_until = found, 2 * iteration
    left, S, right, _ = basis.triplets()
    count = min(problem.k, len(S))
    U = left[:count].to(basis.U.device) @ basis.U
    V = right[:count].to(basis.V.device) @ basis.V
    while len(V) < problem.k:  # beyond the rank any vectors serve, at sigma = 0
        U = torch.cat([U, problem.unit_outside(U)])
        V = torch.cat([V, problem.unit_outside(V)])
    return (V, U) if n > N else (U, V)


def _extend(basis: _Basis, A, At, resolution: float, scale: float) -> float:
    """One block more in both bases: two network passes of as many samples as P has rows."""
    AP = A(basis.P)
    scale = max(scale, AP.norm(dim=1).max().item())
    # Below this, a direction is rounding: it would only cost a probe.
    drop = resolution * scale
    Q, along, R = orthonormal(AP, basis.U, drop)
    rows, columns = basis.B.shape
    B = torch.zeros(rows + len(Q), columns + len(basis.P), dtype=torch.float64)
    B[:rows, :columns] = basis.B
    B[:rows, columns:] = along.T
    B[rows:, columns:] = R.T
    basis.V, basis.U, basis.B = torch.cat([basis.V, basis.P]), torch.cat([basis.U, Q]), B
    AtQ = At(Q) if len(Q) else Q.new_empty(0, basis.V.shape[1])
    basis.P, _, L = orthonormal(AtQ, basis.V, drop)
    basis.T = torch.cat([torch.zeros(rows, len(basis.P), dtype=torch.float64), L])
    return scale


def _restart(basis: _Basis, kept: int) -> None:
    left, S, right, _ = basis.triplets()
    kept = min(kept, len(S))
    basis.V = right[:kept].to(basis.V.device) @ basis.V
    basis.U = left[:kept].to(basis.U.device) @ basis.U
    basis.B, basis.T = S[:kept].diag(), left[:kept] @ basis.T


def _widen(basis: _Basis, problem: Problem, rows: int) -> bool:
    """Random rows beside P, which nothing leads to yet; False if the space is spanned already."""
    known = torch.cat([basis.V, basis.P])
    size = known.shape[1]
    rows = min(rows, size - len(known))
    if rows == 0:
        return len(basis.P) > 0
    new, _, _ = orthonormal(problem.random_rows(rows, size), known, 0.0)
    basis.P = torch.cat([basis.P, new])
    basis.T = torch.cat([basis.T, basis.T.new_zeros(len(basis.T), len(new))], 1)
    return True


def _leading(S: Tensor, errors: Tensor, problem: Problem) -> int:
    """How many of the k leading triplets leave half of tol at most, or rounding.

    Half: the Rayleigh-Ritz step at the end mixes the residuals of a cluster.
    """
    limit = max(0.5 * problem.tol, 4 * problem.resolution) * S[0] if len(S) else 0.0
    return int((errors[: problem.k] <= limit).long().cumprod(0).sum())


def _same(S: Tensor, before: Tensor, tol: float) -> bool:
    if len(S) != len(before):
        return False
    return len(S) == 0 or bool(((S - before).abs() <= tol * S[0]).all())


def _copies_may_hide(basis: _Basis, found: Tensor, block: int, problem: Problem) -> bool:
    """Whether more copies of a found value may exist: b random rows show b of them at most."""
    if len(basis.V) == basis.V.shape[1]:
        return False
    if len(basis.P) == 0:
        return True
    if len(found) < block:
        return False
    first, last = found[: len(found) - block + 1], found[block - 1 :]
    return bool((first - last <= problem.tol * found[0]).any())


def orthonormal(x: Tensor, basis: Tensor, drop: float) -> tuple[Tensor, Tensor, Tensor]:
    """x = along basis + R rows, with rows orthonormal and orthogonal to `basis`: (rows, along, R).

    Directions that x has by no more than `drop` are left out; along and R come on the CPU.
    """
    along = x @ basis.T
    x = x - along @ basis
    again = x @ basis.T
    x, along = x - again @ basis, along + again
    # No more rows than the space has left, whatever rounding says.
    room = min(len(x), basis.shape[1] - len(basis))
    Q, triangle = torch.linalg.qr(x.T)
    left, sizes, right = torch.linalg.svd(triangle)
    kept = int((sizes[:room] > drop).sum())
    rows, R = (Q @ left[:, :kept]).T, right[:kept].T * sizes[:kept]
    # A faint row may be rounding along the basis in part: project it at its full length.
    for _ in range(2):
        Q, triangle = torch.linalg.qr((rows - (rows @ basis.T) @ basis).T)
        rows, R = Q.T, R @ triangle.T
    return rows, along.cpu(), R.cpu()
