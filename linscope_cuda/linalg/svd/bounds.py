"""How far the singular values of F can be from those of the part of it that is known.

In bases that begin with those of the iteration, turned so that the known part is diagonal,

    F = [ S1  0   E1 ]        S1  the first j Ritz values, S2 the others,
        [ 0   S2  E2 ]        E   what they lack: the residuals F^T u - sigma v, as rows,
        [ 0   0   X  ]        X   the rest of F, unknown.

Let N = [S2 E2; 0 X] and |N| <= beta < s_j. Each of the first j singular values of F is at least its
Ritz value s, and its square lambda is that eigenvalue of S1^2 + E1 W E1^T, where

    W = lambda [(lambda - N^T N)^-1]_XX  <=  lambda / (lambda - beta^2) G^-1,
    G = 1 + E2^T S2^2 (beta^2 - S2^2)^-1 (lambda - S2^2)^-1 E2,

as |N| <= beta also limits what X can add to E2. W falls with lambda, so lambda = s^2 may be put in.
The bound is quadratic in the residuals and mostly within ten times of the true error.
beta is the next Ritz value with its residual, s_(j+1) + |e_(j+1)|, and is used where s_j - |e_j| is
above it. That |N| <= beta is an assumption: it is so unless a value of F hides from the iteration.

Without any assumption, some singular value of F is within |e| / 2^(1/2) of s: (u, v) / 2^(1/2) is a
unit vector, and [0 F; F^T 0], whose eigenvalues are the singular values of F, their negatives and
as many zeros as F has rows more than columns or columns more than rows, takes it to s times itself
but for (0, e) / 2^(1/2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Ritz values beyond the k wanted where a gap is looked for: a cluster may reach past k.
BEYOND = 16
_TRIED = 3


def value_bounds(S: Tensor, E: Tensor, k: int) -> Tensor:
    """Bounds on |S - true| of the first k Ritz values, never above |e|: (min(k, m),).

    Those below |e| / 2^(1/2) stand on a gap.

    S (m,) descends, E (m, p) holds the residuals in one orthonormal basis; both float64.

        value_bounds(torch.tensor([2.0, 1.0]), torch.tensor([[1e-3], [1e-2]]), k=1)
    """
    e = E.norm(dim=1)
    bounds, upper = e[:k].clone(), (S + e)[1:]
    seen = gaps(S, e, k)
    size = e.square().cumsum(0)  # of E1, for each j
    for i in range(len(bounds)):
        below = [j for j in seen if j > i]
        if e[i] > 0:
            # A simpler, wider bound tells which gaps serve best, at no cost.
            below.sort(key=lambda j, i=i: (size[j - 1] / (S[i] - upper[j - 1])).item())
            for j in below[:_TRIED]:
                bounds[i] = min(bounds[i], _above(S, E, i, j, upper[j - 1]))
    return bounds


def is_proven(bounds: Tensor, e: Tensor) -> Tensor:
    """Which of the bounds (k,) hold for some singular value without an assumption on the gap.

    Those that are no smaller than the residuals' e (k,) own.

        is_proven(value_bounds(S, E, k), E.norm(dim=1)[:k])
    """
    return bounds >= e / math.sqrt(2)


def gaps(S: Tensor, e: Tensor, k: int) -> list[int]:
    """How many values lie above each gap, of those up to BEYOND past k."""
    last = min(len(S) - 1, k + BEYOND)
    lower, upper = (S - e)[:last], (S + e)[1 : last + 1]
    return [j + 1 for j in range(last) if lower[j] > upper[j]]


def _above(S: Tensor, E: Tensor, i: int, j: int, beta: Tensor) -> Tensor:
    """How much S[i] can be below the true value, with a gap after the first j."""
    S2, E2, lam = S[j:], E[j:], S[i].square()
    # Where S2 comes within rounding of beta, a smaller G is on the safe side.
    room = (beta.square() - S2.square()).clamp(min=torch.finfo(S.dtype).eps * lam)
    G = torch.eye(E.shape[1], dtype=S.dtype)
    G = G + (E2.T * (S2.square() / (room * (lam - S2.square())))) @ E2
    root = torch.linalg.cholesky(G)
    coupling = torch.linalg.solve_triangular(root, E[:j].T, upper=False).T
    coupling = coupling * (lam / (lam - beta.square())).sqrt()
    # As singular values, not as eigenvalues of squares, which would lose half of the digits.
    return (torch.linalg.svdvals(torch.cat([S[:j].diag(), coupling], 1))[i] - S[i]).clamp(min=0)


def clusters(S: Tensor, width: float) -> list[tuple[int, int]]:
    """The runs (start, stop) of S (m,), descending, in which neighbours are at most `width` apart.

    clusters(torch.tensor([3.0, 2.0, 2.0]), 1e-5)    # [(0, 1), (1, 3)]
    """
    near = (S[:-1] - S[1:] <= width).tolist()
    starts = [0, *(i + 1 for i, together in enumerate(near) if not together)]
    return list(zip(starts, [*starts[1:], len(S)], strict=True)) if len(S) else []


def angles(S: Tensor, e: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """Angles (m,) of the vectors to the true ones, by |e| / gap, and which are in clusters (m,).

    S (m,) descends, e (m,) are the sizes of the residuals, `width` is that of `clusters`. In a
    cluster it is the angle of its subspace; for the last one, whose gap is not seen, pi / 2.

        angles(torch.tensor([3.0, 2.0]), torch.tensor([0.01, 0.1]), 1e-5)
    """
    turned = torch.full_like(S, math.pi / 2)
    together = torch.zeros(len(S), dtype=torch.bool)
    for start, stop in clusters(S, width):
        together[start:stop] = stop - start > 1
        if stop == len(S):
            break
        gap = (S[stop - 1] - S[stop] - e[stop]).item()
        if start:
            gap = min(gap, (S[start - 1] - e[start - 1] - S[start]).item())
        size = e[start:stop].norm().item()
        if size < gap:
            turned[start:stop] = math.asin(size / gap)
    return turned, together
