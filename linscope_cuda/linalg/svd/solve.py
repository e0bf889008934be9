"""`svd`: checks, the method asked for, Rayleigh-Ritz where it is due, error bars, signs, dtypes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...display import Drawn, Tabular
from ...progress import bar
from ..operator import MatrixFreeOperator
from ..probes import seeded
from . import checkpoint as files
from . import lanczos, paper
from .bounds import angles
from .problem import ROUNDING, Found, Problem, Step

# Passes per triplet where max_passes is None: beyond any gap that tol can tell, yet not endless.
_PASSES = 10_000
# Steps of the literal Algorithm 1 where none are given; the paper gives no number.
_STEPS = 100

METHODS: dict[str, Callable[[Problem], Found]] = {
    "lanczos": lanczos.lanczos,
    "paper": paper.paper,
    "paper-literal": paper.paper_literal,
}


@dataclass(frozen=True, eq=False, repr=False)
class SVD(Tabular, Drawn):
    """Singular triplets F v = sigma u, F^T u = sigma v, as `svd` returns them.

    `U` (k, *output_shape) and `V` (k, *input_shape), `S`, `errors` and `angles` (k,): in the
    operator's dtype, or float32 where that is float16 or bfloat16. The largest entry of each v is
    positive. Where `interrupted`, these are the triplets that were done, maybe none, of the
    `asked` for.
    `errors` are on |S - true|, with rounding as the dtype and the operator's own products show it.
    Where `proven` (k,) they are bounds: within errors[i] of S[i] lies a singular value of F (zero
    counted as one where F is not square), which follows from the residuals (|F v - S u|^2 +
    |F^T u - S v|^2)^(1/2) / |(u, v)| alone. That it is the i-th largest is proven only where
    "lanczos" ends with bases that fill the smaller space. Where not `proven`, errors[i] is an
    estimate, smaller than that: quadratic in the residuals where the values leave a gap
    (`bounds.py`), and right unless a value hides from the iteration, which a random start leaves
    little room for. docs/svd.md has the measured rates. All of "paper" and "paper-literal" are
    proven. Where `certain`, all are bounds, and on |S[i] - the i-th largest|. `bars` says in words
    which are what, and `print(found)` beside each value.
    `angles` (radians) estimate how far u and v are from the true ones, or where `clustered` (k,),
    from the true subspace of the cluster: the value is within tol sigma_1 of a neighbour, and no
    method can separate their vectors at this tolerance. pi / 2 where no gap tells.
    `passes` counts samples as the operator does, `sequential` the batches one after another.
    `converged` says if every error is at most tol sigma_1.

    >>> found = ls.svd(op, k=2)
    >>> found.S, found.errors, found.converged
    """

    U: Tensor
    S: Tensor
    V: Tensor
    errors: Tensor
    angles: Tensor
    clustered: Tensor
    passes: int
    sequential: int
    converged: bool
    proven: Tensor
    asked: int
    interrupted: bool
    certain: bool = False

    @property
    def bars(self) -> str:
        """What the error bars are: "bounds", "estimates", or how many of them are which."""
        if self.certain:
            return "bounds for certain"
        sure, of = int(self.proven.sum()), len(self.proven)
        if 0 < sure < of:
            return f"{sure} of {of} are bounds, the others estimates"
        return "bounds" if sure == of else "estimates"

    def __str__(self) -> str:
        each = zip(self.S.tolist(), self.errors.tolist(), self.proven.tolist(), strict=True)
        lines = [
            f"{i:3}  {sigma:.7g} +- {error:.1g}, {'bound' if proven else 'estimate'}"
            for i, (sigma, error, proven) in enumerate(each, 1)
        ]
        count = f"stopped: {len(lines)} of {self.asked}" if self.interrupted else len(lines)
        end = "" if self.converged or self.interrupted else ", not converged"
        return "\n".join([*lines, f"{count} triplets, {self.passes} passes{end}"])

    def _columns(self) -> dict[str, list[Any]]:
        return {
            "sigma": self.S.tolist(),
            "error": self.errors.tolist(),
            "proven": self.proven.tolist(),
            "angle": self.angles.tolist(),
            "clustered": self.clustered.tolist(),
        }


@torch.no_grad()
def svd(
    op: MatrixFreeOperator,
    k: int = 8,
    method: str = "lanczos",
    *,
    tol: float = 1e-5,
    angle: float | None = None,
    which: str = "largest",
    max_passes: int | None = None,
    momentum: float | None = None,
    steps: int | None = None,
    block: int | None = None,
    generator: torch.Generator | None = None,
    progress: bool | None = None,
    callback: Callable[[Step], object] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    certain: bool = False,
) -> SVD:
    """The k largest singular triplets of F, the paper's eigen-inputs v and eigen-outputs u.

    "lanczos" is block Golub-Kahan-Lanczos with thick restarts: `block` probes (None: 5, fewer where
    the operator's memory takes fewer) go through the network at once, all products seen so far are
    used, and it stops where the error bars of all k are a quarter of tol sigma_1, or rounding. Then
    vectors are good to about (tol sigma_1 / gap)^(1/2); `angle` (radians) asks for more: that all
    `angles` are at most so, or as rounding lets them be. It needs far fewer passes than the power
    iterations below. `checkpoint` is a file where the state is kept: a call with the same arguments
    goes on from there, to the same result, and another tol may go on to better bars.

    `certain=True` pays for bars that hold whatever hides: what no triplet has shown is bounded from
    random vectors (`certain.py`), and whatever they find is looked for in turn. All are then bounds
    on |S[i] - the i-th largest|, but for a chance of 1e-6, rounding aside.

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
    triplet) bounds the passes: it ends the first two early, "paper" not before one iteration per
    triplet, with converged False, and refuses "paper-literal". `generator` None is a fixed seed;
    one on the CPU gives the same starts on every device. A bar shows triplets and error after two
    seconds, on a terminal or in a notebook (`progress` True: at once and anywhere, False: never);
    `callback` gets a `Step` after each iteration. KeyboardInterrupt returns the triplets that are
    done, `interrupted`.
    Raises TypeError if op is no operator, and ValueError for an unknown method, which other than
    "largest", k outside 1 ... min(N, n), tol or angle <= 0, momentum < 0, steps or block < 1,
    options without use, too small max_passes, a checkpoint of another call or damaged, before any
    work; ValueError also if op gives values that are not finite.

    >>> found = ls.svd(op, k=3)
    >>> op.filter(found.V), found.S    # sigma u, sigma
    """
    if not isinstance(op, MatrixFreeOperator):
        raise TypeError(f"svd wants a MatrixFreeOperator, was given {type(op).__name__}")
    if method not in METHODS:
        raise ValueError(f"svd wants a method of {', '.join(METHODS)}, was given {method!r}")
    if which != "largest":
        raise ValueError(
            f'svd wants which="largest", was given {which!r}: products with F alone do not lead '
            "to the smallest singular values"
        )
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
    if certain and method != "lanczos":
        raise ValueError(f'svd wants certain for "lanczos" only, was given it for {method!r}')
    if angle is not None and not (0 < angle < math.inf and method == "lanczos"):
        raise ValueError(f'svd wants angle > 0 and for "lanczos" only, was given {angle}')
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and method != "lanczos":
        raise ValueError(f'svd wants a checkpoint for "lanczos" only, was given one for {method!r}')
    steps = _STEPS if steps is None else steps
    least = 2 * k * (1 + (steps if method == "paper-literal" else 1))
    if max_passes is not None and max_passes < least:
        raise ValueError(
            f"{method} wants max_passes >= {least} for k = {k}, was given {max_passes}"
        )
    if path is not None:
        files.require_writable(path)
    with bar(progress, unit=" passes") as shown:
        problem = Problem(
            op,
            k,
            tol,
            _PASSES * k if max_passes is None else max_passes,
            seeded(generator),
            shown,
            callback,
            momentum,
            steps,
            block,
            math.inf if angle is None else angle,
            path,
            certain,
        )
        interrupted = False
        try:
            found = METHODS[method](problem)
        except KeyboardInterrupt:
            found, interrupted = problem.kept(), True
        return _finish(problem, found, interrupted)


def _finish(problem: Problem, found: Found, interrupted: bool) -> SVD:
    op = problem.op
    if found.bounds is None:
        found = _measured(problem, found)
    U, V, S, bounds, residuals, following, rounding, proven, certain = found
    assert S is not None and bounds is not None
    assert residuals is not None and following is not None
    scale = S.max().item() if len(S) else 0.0
    errors = bounds + rounding
    order = S.argsort(descending=True, stable=True)  # the literal method has its own
    turned, together = angles(
        torch.cat([S[order], following]),
        torch.cat([residuals[order], residuals[len(S) :]]),
        problem.tol * scale,
    )
    place = order.argsort()
    largest = V.gather(1, V.abs().argmax(1, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0)
    dtype = op.dtype if op.dtype.itemsize >= 4 else torch.float32
    return SVD(
        U=(sign * U).to(dtype).reshape(-1, *op.output_shape),
        S=S.to(op.device, dtype),
        V=(sign * V).to(dtype).reshape(-1, *op.input_shape),
        errors=errors.to(op.device, dtype),
        angles=turned[place].to(op.device, dtype),
        clustered=together[place].to(op.device),
        passes=problem.passes,
        sequential=problem.sequential,
        converged=not interrupted and bool((errors <= problem.tol * scale).all()),
        proven=(torch.ones_like(S, dtype=torch.bool) if proven is None else proven).to(op.device),
        asked=problem.k,
        interrupted=interrupted,
        certain=certain,
    )


def _measured(problem: Problem, found: Found) -> Found:
    """With bounds from one more product each way, after Rayleigh-Ritz where it is due."""
    U, V, S = found.U, found.V, found.S
    FV, FtU = problem.filter(V), problem.transpose(U)
    if S is None:
        A, S, Bh = torch.linalg.svd(U @ FV.T)
        U, FtU, V, FV = A.T @ U, A.T @ FtU, Bh @ V, Bh @ FV
    left, right = FV - S[:, None] * U, FtU - S[:, None] * V
    residual = (left.square().sum(1) + right.square().sum(1)).sqrt()
    size = (U.square().sum(1) + V.square().sum(1)).sqrt()
    # A vector of zeros (the literal method, on a zero matrix) says nothing about F.
    bounds = torch.where(size > 0, residual / size, math.inf).cpu()
    # These methods do not look below the k: nothing is known there, unless nothing is.
    ends = [-math.inf] if len(S) == min(problem.op.shape) else []
    return Found(
        U,
        V,
        S.cpu(),
        bounds,
        residuals=torch.cat([bounds, bounds.new_zeros(len(ends))]),
        following=bounds.new_tensor(ends),
        rounding=ROUNDING * problem.resolution * (S.max().item() if len(S) else 0.0),
    )
