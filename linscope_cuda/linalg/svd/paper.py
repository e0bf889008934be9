"""Algorithm 1 of the paper: with its errors settled, and as printed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .problem import ROUNDING, Found, Problem, norm, outside

# Within 1000 units of the dtype's resolution, an iteration that sets no new best for so long is as
# good as it gets.
_STALL = 100


def paper(problem: Problem) -> Found:
    """Algorithm 1 with its errors settled: momentum power iterations, deflated on both sides."""
    N, n = problem.op.shape
    U, V, sigma_1 = problem.empty(N), problem.empty(n), 0.0
    for i in range(problem.k):
        found = Found(U, V)
        problem.keep(lambda found=found: found)
        # Each triplet has an equal share of the passes left, but for the 2 k of the end.
        left = problem.max_passes - 2 * problem.k - problem.passes
        u, v, sigma = _power_triplet(problem, U, V, sigma_1, left // (problem.k - i))
        sigma_1 = max(sigma_1, sigma)
        U, V = torch.cat([U, u]), torch.cat([V, v])
    return Found(U, V)


def _power_triplet(
    problem: Problem, U: Tensor, V: Tensor, sigma_1: float, share: int
) -> tuple[Tensor, Tensor, float]:
    """The largest triplet of G = (1 - U^T U) F (1 - V^T V), by v <- G^T G v - m v_previous.

    m has units of sigma^4 and is best at (next sigma)^4 / 4. How far the next one is shows in
    the residuals: at that m they shrink by rho = q / (1 + (1 - q^2)^(1/2)) per iteration, where
    q = (next sigma / sigma)^2, hence q = 2 rho / (1 + rho^2). Whatever rho, q is at most 1, and
    |G v| at most the true sigma: m never passes sigma^4 / 4, beyond which nothing converges.
    Residuals that grow (rho > 1) lower m.
    """
    start, triplet = problem.passes, len(U) + 1
    v = problem.unit_outside(V)
    previous, m = torch.zeros_like(v), 0.0
    last, best, best_at, iteration = math.inf, math.inf, 0, 0
    while True:
        before, iteration = problem.passes, iteration + 1
        Fv = problem.filter(v)
        u = problem.unit_outside(U, Fv)
        sigma = (u * Fv).sum().item()  # |G v|, as u is along G v
        sigma_1 = max(sigma_1, sigma)
        z = outside(problem.transpose(u), V)
        residual = norm(z - sigma * v)
        error = residual / sigma_1 if sigma_1 else 0.0
        problem.report(triplet, iteration, sigma, error, triplet - 1)
        if residual < best:
            best, best_at = residual, iteration
        # Half of tol: the Rayleigh-Ritz step at the end mixes the residuals of a cluster.
        rounding = problem.resolution * sigma_1
        if (
            residual <= max(0.5 * problem.tol * sigma_1, ROUNDING * rounding)
            or (best <= 1000 * rounding and iteration - best_at >= _STALL)
            or 2 * problem.passes - before - start > share  # no room for one more
        ):
            return u, v, sigma
        change = residual * sigma  # |G^T G v - sigma^2 v|
        if problem.momentum is not None:
            m = problem.momentum * (sigma / sigma_1) ** 4
        elif iteration > 2:
            rho = change / last if last else 1.0
            m = (sigma**2 * rho / (1 + rho**2)) ** 2
        last = change
        following = sigma * z - m * previous
        growth = norm(following)
        previous = v / growth if growth else torch.zeros_like(v)
        v = problem.unit_outside(V, following)


def paper_literal(problem: Problem) -> Found:
    """Algorithm 1 as printed, line by line; see `svd` for what is wrong with it."""
    N, n = problem.op.shape
    m = problem.momentum or 0.0
    U, V, S = problem.empty(N), problem.empty(n), problem.empty(1)
    tiny = torch.finfo(torch.float64).tiny  # where a norm is 0, vectors stay 0
    for i in range(problem.k):
        found = Found(U, V, S[:, 0])
        problem.keep(lambda found=found: found)
        v = problem.random(n)
        u, v_previous = problem.empty(N), torch.zeros_like(v)
        sigma2 = sigma2_previous = 0.0
        for iteration in range(1, problem.steps + 1):
            u = problem.filter(v) - (v @ V.T * S.T) @ U
            v_next = problem.transpose(u) - (u @ U.T * S.T) @ V - m * v_previous
            sigma2 = (v * v_next).sum().item()
            size = max(norm(v_next), tiny)
            v_previous, v = v / size, v_next / size
            change = abs(sigma2 - sigma2_previous) / max(abs(sigma2), tiny)
            problem.report(i + 1, iteration, math.sqrt(max(sigma2, 0.0)), change, i)
            sigma2_previous = sigma2
        U = torch.cat([U, u / max(norm(u), tiny)])
        V = torch.cat([V, v])
        S = torch.cat([S, S.new_full((1, 1), math.sqrt(max(sigma2, 0.0)))])
    return Found(U, V, S[:, 0])
