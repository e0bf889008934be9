"""What the methods of `svd` share: products in float64, random rows, progress."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..operator import MatrixFreeOperator
from ..probes import gaussian

# Residuals below so many units of the dtype's resolution are rounding, and no iteration helps.
ROUNDING = 4


class Step(NamedTuple):
    """What `callback` is given after an iteration; triplet and iteration count from 1.

    `triplet` is the one being worked on and `sigma` its value; `converged` leading ones are done.
    `error` is relative: the bound on sigma over sigma_1 in "lanczos", |F^T u - sigma v| / sigma_1
    in "paper", the last change of sigma^2 over sigma^2 in "paper-literal". `passes` are those of
    this call so far, in samples, `sequential` in batches; `restarts` counts those of "lanczos".

        svd(op, k=3, callback=lambda step: print(step.converged, step.error))
    """

    triplet: int
    iteration: int
    sigma: float
    error: float
    passes: int
    sequential: int = 0
    converged: int = 0
    restarts: int = 0


class Found(NamedTuple):
    """What a method finds, as rows. With S None they are orthonormal and Rayleigh-Ritz is due.

    `bounds` are known where the method knows them; then `residuals` are those of S and of the
    values that follow it, `following`, as far as they are known.
    """

    U: Tensor
    V: Tensor
    S: Tensor | None = None
    bounds: Tensor | None = None
    residuals: Tensor | None = None
    following: Tensor | None = None
    rounding: float = 0.0  # to be added to the bounds
    proven: Tensor | None = None  # which of the bounds need no assumption; None: all
    certain: bool = False  # all are of the i-th largest values


@dataclass
class Problem:
    """One call of `svd` as its method sees it: vectors are rows, flat and float64."""

    op: MatrixFreeOperator
    k: int
    tol: float
    max_passes: int
    generator: torch.Generator
    bar: Any = None
    callback: Callable[[Step], object] | None = None
    momentum: float | None = None
    steps: int = 0
    block: int | None = None
    angle: float = math.inf
    checkpoint: Path | None = None
    certain: bool = False
    passes: int = 0
    sequential: int = 0
    resolution: float = field(init=False)
    _kept: Callable[[], Found] = field(init=False)

    def __post_init__(self) -> None:
        N, n = self.op.shape
        self.resolution = torch.finfo(self.op.dtype).eps
        self._kept = lambda: Found(self.empty(N), self.empty(n))

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
        before = self.op.passes
        y = product((x * scale).to(self.op.dtype).reshape(-1, *shape))
        self.passes += self.op.passes - before
        self.sequential += math.ceil(len(x) / (self.op.max_batch or max(len(x), 1)))
        y = y.reshape(len(x), math.prod(y.shape[1:])).double() / scale
        if not y.isfinite().all():
            raise ValueError(f"{self.op} gave values that are not finite for a finite probe")
        return y

    def empty(self, size: int) -> Tensor:
        """No rows yet, of vectors with `size` entries."""
        return torch.empty((0, size), dtype=torch.float64, device=self.op.device)

    def random(self, size: int, rows: int = 1) -> Tensor:
        """Normal numbers, (rows, size)."""
        return gaussian((rows, size), self.generator, self.op.device)

    def unit_outside(self, basis: Tensor, x: Tensor | None = None) -> Tensor:
        """The unit row along x (None: random) orthogonal to the orthonormal rows of `basis`.

        Random also where rounding leaves nothing of x; `basis` must leave room.
        """
        x = self.random(basis.shape[1]) if x is None else x
        while True:
            once = outside(x, basis)
            twice = outside(once, basis)
            size = norm(twice)
            # Twice is enough, unless once was all rounding.
            if size > 0.5 * norm(once):
                return twice / size
            x = self.random(basis.shape[1])

    def go_on(self, passes: int, sequential: int) -> None:
        """Counts from what an earlier call has spent."""
        self.passes, self.sequential = passes, sequential

    def keep(self, found: Callable[[], Found]) -> None:
        """The triplets that are done by now: what an interrupt leaves, computed only then."""
        self._kept = found

    def kept(self) -> Found:
        """What was kept last; no triplets before."""
        return self._kept()

    def report(
        self,
        triplet: int,
        iteration: int,
        sigma: float,
        error: float,
        converged: int,
        restarts: int = 0,
    ) -> None:
        """Tells the bar and the callback."""
        text = f"{converged}/{self.k} triplets, sigma_{triplet} {sigma:.4g}, error {error:.1e}"
        if self.bar is not None:
            self.bar.set_description_str(text, refresh=False)
            self.bar.update(self.passes - self.bar.n)
        if self.callback is not None:
            counted = self.passes, self.sequential, converged, restarts
            self.callback(Step(triplet, iteration, sigma, error, *counted))


def outside(x: Tensor, basis: Tensor) -> Tensor:
    """The rows of x less their parts along the orthonormal rows of `basis`."""
    return x - (x @ basis.T) @ basis


def norm(x: Tensor) -> float:
    """|x| as a number."""
    return torch.linalg.vector_norm(x).item()
