"""What a state of `lanczos` shows: triplets, their bars, and how many are as good as asked for."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from .bounds import BEYOND, angles, value_bounds
from .problem import Problem
from .state import State

# The bars are to reach this part of tol: the values compared with others are then good to tol.
_MARGIN = 0.25
# Units of the dtype's resolution that a value is uncertain by, after products of products.
_ROUNDING = 16
# The bars come so much closer where those that hold for certain were too wide.
_CLOSER = 4
# Values are told apart that are so many residuals apart. A hidden value leaves residuals as large
# as the deviation of those around it, a few times less than their range.
_TOLD = 8


class View(NamedTuple):
    """Singular triplets of B as rows, largest first, what they lack, and how good they are."""

    S: Tensor
    left: Tensor
    right: Tensor
    E: Tensor  # the residuals, in terms of P
    bounds: Tensor
    done: int


def view_of(problem: Problem, state: State) -> View:
    left, S, right = torch.linalg.svd(state.B, full_matrices=False)
    E = left.T @ state.T
    bounds = value_bounds(S, E, problem.k)
    return View(S, left.T, right, E, bounds, _count_done(problem, state, S, E, bounds))


def _count_done(problem: Problem, state: State, S: Tensor, E: Tensor, bounds: Tensor) -> int:
    """How many of the k leading triplets are as good as asked for, or as rounding lets them be."""
    if len(state.P) == 0 and state.iteration:
        return problem.k  # the bases hold every value that their start can show; the rest is 0
    if len(S) == 0:
        return 0
    rounding = rounding_of(problem, state, S)
    fine = bounds <= wanted(problem, state, S)
    if problem.angle < inf:
        size, count = E.norm(dim=1)[: problem.k + BEYOND], len(bounds)
        turned, _ = angles(S[: len(size)], size, problem.tol * S[0].item())
        fine = fine & ((turned[:count] <= problem.angle) | (size[:count] <= rounding))
    # As many values as there were start rows, so close that their residuals do not tell them
    # apart, may hide another one. It shows as these shrink, unless they are copies.
    runs, e = runs_of(state, S, problem.k), E.norm(dim=1)
    # Not the smallest residual of each run, which may be so by chance.
    second = min(2, state.block)
    sharpest = (
        e.unfold(0, state.block, 1)[: len(runs)].kthvalue(second).values if len(runs) else runs
    )
    apart = (runs > _TOLD * sharpest) | (runs <= problem.tol * S[0]) | (sharpest <= rounding)
    fine[: len(runs)] &= apart[: len(fine)]
    return int(fine.long().cumprod(0).sum())


def wanted(problem: Problem, state: State, S: Tensor) -> float:
    """How wide a bar may be."""
    margin = _MARGIN / _CLOSER**state.proofs
    return max(margin * problem.tol * S[0].item(), rounding_of(problem, state, S))


def rounding_of(problem: Problem, state: State, S: Tensor) -> float:
    scale = S[0].item() if len(S) else 0.0
    return max(_ROUNDING * problem.resolution * scale, state.rounding)


def runs_of(state: State, S: Tensor, k: int) -> Tensor:
    """How far apart b values in a row are, for each of the first k: b rows may hide one more."""
    b = state.block
    count = max(0, min(k, len(S) - b + 1))
    return S[:count] - S[b - 1 : b - 1 + count]
