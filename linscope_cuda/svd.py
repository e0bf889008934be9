"""Singular triplets of a matrix-free operator, F = U S V^T, largest first.

Each method of `METHODS` finds k directions in its own way. What they share stands here once:
checks, products in float64, random vectors, progress, Rayleigh-Ritz, error bars and signs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import index
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .lanczos import lanczos
from .operator import MatrixFreeOperator, gaussian, seeded

# Residuals below so many units of the dtype's resolution are rounding, and no iteration helps.
_ROUNDING = 4
# Within 1000 units, an iteration that sets no new best for so long is as good as it gets.
_STALL = 100
# Passes per triplet where max_passes is None: beyond any gap that tol can tell, yet not endless.
_PASSES = 10_000
# Steps of the literal Algorithm 1 where none are given; the paper gives no number.
_STEPS = 100


@dataclass(frozen=True, eq=False)
class SVD:
    """Singular triplets F v = sigma u, F^T u = sigma v, as `svd` returns them.

    `U` (k, *output_shape) and `V` (k, *input_shape), `S` (k,), `errors` (k,): in the operator's
    dtype, or float32 where that is float16 or bfloat16. The largest entry of each v is positive.
    `errors` bound |S - true|: with w = (u, v), some singular value of F (zero counted as one
    where F is not square) is within (|F v - S u|^2 + |F^T u - S v|^2)^(1/2) / |w| of S. Rounding
    of the dtype is added; what an operator's own products lose beyond it is not. The bound is on
    each value by itself: it cannot tell whether a larger one was missed, and it is about the
    square root of the true relative error where sigma is well separated.
    `passes` is what the operator counted; `converged` says if every residual met `tol`.
    """

    U: Tensor
    S: Tensor
    V: Tensor
    errors: Tensor
    passes: int
    converged: bool


class Step(NamedTuple):
    """What `callback` is given after an iteration; triplet and iteration count from 1.

    `error` is relative: |F^T u - sigma v| / sigma_1, or, in "paper-literal", the last change of
    sigma^2. `passes` are those of this call so far.
    """

    triplet: int
    iteration: int
    sigma: float
    error: float
    passes: int


class Directions(NamedTuple):
    """What a method finds, as rows: with S None they are orthonormal and Rayleigh-Ritz is due."""

    U: Tensor
    V: Tensor
    S: Tensor | None = None


@dataclass
class Problem:
    """One call of `svd` as its method sees it: vectors are rows, flat and float64."""

    op: MatrixFreeOperator
    k: int
    tol: float
    max_passes: int
    momentum: float | None
    steps: int
    generator: torch.Generator
    bar: Any
    callback: Callable[[Step], object] | None
    block: int | None = None

    def __post_init__(self) -> None:
        self._passes_before = self.op.passes
        self.resolution = torch.finfo(self.op.dtype).eps

    @property
    def passes(self) -> int:
        return self.op.passes - self._passes_before

    def filter(self, v: Tensor) -> Tensor:
        """F v: (K, n) -> (K, N)."""
        return self._product(self.op.filter, v, self.op.input_shape)

    def transpose(self, u: Tensor) -> Tensor:
        """F^T u: (K, N) -> (K, n)."""
        return self._product(self.op.transpose, u, self.op.output_shape)

    def _product(
        self, product: Callable[[Tensor], Tensor], x: Tensor, shape: tuple[int, ...]
    ) -> Tensor:
        # The entries of a long unit vector are too small for float16: give them the scale of a
        # normalised image. A power of two costs no digits.
        half = self.op.dtype == torch.float16
        scale = 2.0 ** round(math.log2(x.shape[1]) / 2) if half else 1.0
        y = product((x * scale).to(self.op.dtype).reshape(-1, *shape))
        y = y.reshape(len(x), -1).double() / scale
        if not y.isfinite().all():
            raise ValueError(f"{self.op} gave values that are not finite for a finite probe")
        return y

    def empty(self, size: int) -> Tensor:
        """No rows yet, of vectors with `size` entries."""
        return torch.empty((0, size), dtype=torch.float64, device=self.op.device)

    def random(self, size: int) -> Tensor:
        """A row of normal numbers, (1, size)."""
        return self.random_rows(1, size)

    def random_rows(self, rows: int, size: int) -> Tensor:
        """Normal numbers, (rows, size)."""
        return gaussian((rows, size), self.generator, self.op.device)

    def unit_outside(self, basis: Tensor, x: Tensor | None = None) -> Tensor:
        """The unit row along x (None: random) orthogonal to the orthonormal rows of `basis`.

        Random also where rounding leaves nothing of x; `basis` must leave room.
        """
        x = self.random(basis.shape[1]) if x is None else x
        while True:
            once = _outside(x, basis)
            twice = _outside(once, basis)
            size = _norm(twice)
            # Twice is enough, unless once was all rounding.
            if size > 0.5 * _norm(once):
                return twice / size
            x = self.random(basis.shape[1])

    def report(self, triplet: int, iteration: int, sigma: float, error: float) -> None:
        step = Step(triplet, iteration, sigma, error, self.passes)
        text = f"triplet {triplet}/{self.k}, sigma {sigma:.4g}, error {error:.1e}"
        self.bar.set_description_str(text, refresh=False)
        self.bar.update(step.passes - self.bar.n)
        if self.callback is not None:
            self.callback(step)


def _outside(x: Tensor, basis: Tensor) -> Tensor:
    return x - (x @ basis.T) @ basis


def _norm(x: Tensor) -> float:
    return torch.linalg.vector_norm(x).item()


def paper(problem: Problem) -> Directions:
    """Algorithm 1 with its errors settled: momentum power iterations, deflated on both sides."""
    N, n = problem.op.shape
    U, V, sigma_1 = problem.empty(N), problem.empty(n), 0.0
    for i in range(problem.k):
        # Each triplet has an equal share of the passes left, but for the 2 k of the end.
        left = problem.max_passes - 2 * problem.k - problem.passes
        u, v, sigma = _power_triplet(problem, U, V, sigma_1, left // (problem.k - i))
        sigma_1 = max(sigma_1, sigma)
        U, V = torch.cat([U, u]), torch.cat([V, v])
    return Directions(U, V)


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
        z = _outside(problem.transpose(u), V)
        residual = _norm(z - sigma * v)
        problem.report(triplet, iteration, sigma, residual / sigma_1 if sigma_1 else 0.0)
        if residual < best:
            best, best_at = residual, iteration
        # Half of tol: the Rayleigh-Ritz step at the end mixes the residuals of a cluster.
        rounding = problem.resolution * sigma_1
        if (
            residual <= max(0.5 * problem.tol * sigma_1, _ROUNDING * rounding)
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
        growth = _norm(following)
        previous = v / growth if growth else torch.zeros_like(v)
        v = problem.unit_outside(V, following)


def paper_literal(problem: Problem) -> Directions:
    """Algorithm 1 as printed, line by line; see `svd` for what is wrong with it."""
    N, n = problem.op.shape
    m = problem.momentum or 0.0
    U, V, S = problem.empty(N), problem.empty(n), problem.empty(1)
    tiny = torch.finfo(torch.float64).tiny  # where a norm is 0, vectors stay 0
    for i in range(problem.k):
        v = problem.random(n)
        u, v_previous = problem.empty(N), torch.zeros_like(v)
        sigma2 = sigma2_previous = 0.0
        for iteration in range(1, problem.steps + 1):
            u = problem.filter(v) - (v @ V.T * S.T) @ U
            v_next = problem.transpose(u) - (u @ U.T * S.T) @ V - m * v_previous
            sigma2 = (v * v_next).sum().item()
            norm = max(_norm(v_next), tiny)
            v_previous, v = v / norm, v_next / norm
            change = abs(sigma2 - sigma2_previous) / max(abs(sigma2), tiny)
            problem.report(i + 1, iteration, math.sqrt(max(sigma2, 0.0)), change)
            sigma2_previous = sigma2
        U = torch.cat([U, u / max(_norm(u), tiny)])
        V = torch.cat([V, v])
        S = torch.cat([S, S.new_full((1, 1), math.sqrt(max(sigma2, 0.0)))])
    return Directions(U, V, S[:, 0])


METHODS: dict[str, Callable[[Problem], Directions]] = {
    "lanczos": lambda problem: Directions(*lanczos(problem)),
    "paper": paper,
    "paper-literal": paper_literal,
}


def _finish(problem: Problem, found: Directions) -> SVD:
    """Rayleigh-Ritz where it is due, error bars from one more product each way, signs, dtypes."""
    op, (U, V, S) = problem.op, found
    FV, FtU = problem.filter(V), problem.transpose(U)
    if S is None:
        A, S, Bh = torch.linalg.svd(U @ FV.T)
        U, FtU, V, FV = A.T @ U, A.T @ FtU, Bh @ V, Bh @ FV
    left, right = FV - S[:, None] * U, FtU - S[:, None] * V
    residual = (left.square().sum(1) + right.square().sum(1)).sqrt()
    size = (U.square().sum(1) + V.square().sum(1)).sqrt()
    # A vector of zeros (the literal method, on a zero matrix) says nothing about F.
    errors = torch.where(size > 0, residual / size, math.inf)
    converged = bool((errors <= problem.tol * S.max()).all())
    errors = errors + _ROUNDING * problem.resolution * S.max()
    largest = V.gather(1, V.abs().argmax(1, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0)
    dtype = op.dtype if op.dtype.itemsize >= 4 else torch.float32
    return SVD(
        U=(sign * U).to(dtype).reshape(-1, *op.output_shape),
        S=S.to(dtype),
        V=(sign * V).to(dtype).reshape(-1, *op.input_shape),
        errors=errors.to(dtype),
        passes=problem.passes,
        converged=converged,
    )


@torch.no_grad()
def svd(
    op: MatrixFreeOperator,
    k: int = 8,
    method: str = "lanczos",
    *,
    tol: float = 1e-5,
    max_passes: int | None = None,
    momentum: float | None = None,
    steps: int | None = None,
    block: int | None = None,
    generator: torch.Generator | None = None,
    progress: bool | None = None,
    callback: Callable[[Step], object] | None = None,
) -> SVD:
    """The k largest singular triplets of F, the paper's eigen-inputs v and eigen-outputs u.

    "lanczos" is block Golub-Kahan-Lanczos with thick restarts: `block` probes (None: 8) go through
    the network at once, all products seen so far are used, and it stops where the residuals
    |F^T u - sigma v| of all k are at most tol sigma_1, or rounding. It needs far fewer passes than
    the power iterations below.

    "paper" is Algorithm 1 with its errors settled: sigma = |F v| with |v| = 1, which momentum does
    not bias; momentum from the observed convergence (None), or a number m >= 0 in units of
    sigma^4, scaled down with sigma^4 after the first triplet; it stops where
    |F^T u - sigma v| <= tol sigma_1 or rounding is reached; deflation on both sides,
    re-orthogonalised; Rayleigh-Ritz at the end. U and V are orthonormal, S descends, and a k
    beyond the rank gives sigma = 0. Singular values closer than tol may come out as any basis of
    their common subspace.

    "paper-literal" is Algorithm 1 as printed, `steps` iterations (None: 100) per triplet, in the
    order found. Line 1 overwrites the input m, so it has no momentum; a `momentum` here leaves
    that slip out and uses m. Then line 5 does not give sigma^2 but
    (sigma^2 + (sigma^4 - 4 m)^(1/2)) / 2, deflating with it leaves a spurious singular value, and
    m > sigma^4 / 4 never converges. u belongs to the v before the last, and `tol` does not stop it,
    but only sets `converged`. `errors` hold, and show all of this.

    Products run in the operator's dtype, all else in float64. `max_passes` (None: 10,000 per
    triplet) bounds the passes: it ends "paper" early, though not before one iteration per triplet,
    with converged False, and refuses "paper-literal". `generator` None is a fixed seed; one on
    the CPU gives the same starts on every device. A bar shows triplet and error where it takes
    more than two seconds (`progress` True: at once, False: never); `callback` gets a `Step` after
    each iteration.
    Raises TypeError if op is no operator, and ValueError for an unknown method, k outside
    1 ... min(N, n), tol <= 0, momentum < 0, steps or block < 1 or without use, too small
    max_passes, before any work; ValueError also if op gives values that are not finite.

        found = svd(op, k=3)
        op.filter(found.V), found.S    # sigma u, sigma
    """
    if not isinstance(op, MatrixFreeOperator):
        raise TypeError(f"svd wants a MatrixFreeOperator, was given {type(op).__name__}")
    if method not in METHODS:
        raise ValueError(f"svd wants a method of {', '.join(METHODS)}, was given {method!r}")
    if not 1 <= (k := index(k)) <= min(op.shape):
        raise ValueError(f"svd wants k in 1 ... {min(op.shape)} for {op}, was given {k}")
    if not 0 < tol < math.inf:
        raise ValueError(f"svd wants tol > 0, was given {tol}")
    if momentum is not None and not 0 <= momentum < math.inf:
        raise ValueError(f"svd wants momentum >= 0 or None, was given {momentum}")
    if steps is not None and (steps < 1 or method != "paper-literal"):
        raise ValueError(f'svd wants steps >= 1 and for "paper-literal" only, was given {steps}')
    if block is not None and (block < 1 or method != "lanczos"):
        raise ValueError(f'svd wants block >= 1 and for "lanczos" only, was given {block}')
    steps = _STEPS if steps is None else steps
    least = 2 * k * (1 + (steps if method == "paper-literal" else 1))
    if max_passes is not None and max_passes < least:
        raise ValueError(
            f"{method} wants max_passes >= {least} for k = {k}, was given {max_passes}"
        )
    allowed = _PASSES * k if max_passes is None else max_passes
    bar = tqdm(unit=" passes", delay=0 if progress else 2, disable=progress is False)
    with bar:
        problem = Problem(
            op, k, tol, allowed, momentum, steps, seeded(generator), bar, callback, block
        )
        return _finish(problem, METHODS[method](problem))
