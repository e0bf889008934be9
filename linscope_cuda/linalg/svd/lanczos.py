"""Thick-restart block Golub-Kahan-Lanczos bidiagonalisation.

With A = F, or F^T where that is the taller, two orthonormal bases grow by a block at a time:

    A V = U B,    A^T U = V B^T + P T^T,

P the next block of V; all are kept as rows. Each block is projected off all before it, twice, so
that B is what A is between the bases and not what a recurrence says. B's singular triplets give
those of F, and what each lacks is its row of T. Once a gap shows, only what the triplets not done
lack goes on; the rest of P stays as it is. A full basis is cut to its best triplets, which satisfy
the same two lines.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import inf

import torch
from torch import Tensor

from .basis import grown, orthonormal
from .bounds import BEYOND, gaps, is_proven
from .certain import RISK, Product, Proof, prove
from .problem import Found, Problem
from .state import Keeper, State
from .view import View, rounding_of, runs_of, view_of, wanted

# Samples per network pass: more of them take fewer passes in sequence, but more samples in all.
BLOCK = 5
# Rows of a basis where memory has room for more: beyond, B's own SVD costs more than it saves.
_ROWS = 256
# Bytes of the bases on the CPU; on CUDA, half of what is free.
_BYTES = 2**31
# How much of a row that leads on must be new.
_NEW = 0.1
# A narrow block is to bring the bars down by this factor, as a whole one mostly does.
_GAIN = 3


def lanczos(problem: Problem) -> Found:
    """Block Golub-Kahan-Lanczos with full re-orthogonalisation, restarted where memory ends."""
    keeper = Keeper(problem)
    state = keeper.load() or _start(problem)
    while True:
        view = view_of(problem, state)
        problem.keep(partial(_found, problem, state, view, view.done))
        if state.iteration:
            _report(problem, state, view)
        keeper.save(state)
        following, bars = _next(problem, state, view), None
        if following is None and problem.certain and (proof := _proof(problem, state, view)):
            bars = proof.bars
            following = None if proof.holds else _led_on(problem, state, proof.rows)
        if following is None:
            keeper.save(state, last=True)
            return _found(problem, state, view, problem.k, bars)
        state = following


def _transposed(problem: Problem) -> bool:
    """Whether A is F^T."""
    N, n = problem.op.shape
    return n > N


def _products(problem: Problem) -> tuple[Product, Product]:
    """A and its transpose."""
    F, Ft = problem.filter, problem.transpose
    return (Ft, F) if _transposed(problem) else (F, Ft)


def _start(problem: Problem) -> State:
    small, large = sorted(problem.op.shape)
    device = problem.op.device
    # One row alone never shows that a value has copies.
    fitting = max(2, problem.op.max_batch or BLOCK)
    rows = min(problem.block or min(BLOCK, fitting), small, problem.max_passes // 2)
    P, _, _ = orthonormal(problem.random(small, rows), problem.empty(small))
    free = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else _BYTES
    # A basis is copied where it grows: each row takes its place twice.
    room = min(free // (16 * (small + large)), max(_ROWS, 4 * problem.k))
    none = torch.zeros(0, 0, dtype=torch.float64)
    return State(
        V=problem.empty(small),
        U=problem.empty(large),
        B=none,
        P=P,
        T=none.new_zeros(0, len(P)),
        settled=none.flatten(),
        block=len(P),
        capacity=min(small, max(room, problem.k + 4 * rows)),
    )


def _next(problem: Problem, state: State, view: View) -> State | None:
    """The state after one block more, or None: nothing is left to do, or to do it with."""
    if state.iteration and view.done == problem.k and not _on_trial(state):
        found = view.S[: problem.k]
        shown = _same(found, state.settled, problem.tol) if state.trial_until else False
        # Rows that know nothing of the old ones get as long as those had.
        if shown or not (state.trial_until or _copies_may_hide(problem, state, view)):
            return None
        widened = _widened(problem, state, found)
        if widened is None:
            return None
        state = widened
    state, rows = _turned(problem, state, view)
    if state.iteration and problem.passes + 2 * rows > problem.max_passes:
        return None
    if len(state.U) + rows > state.capacity:
        state = _restarted(problem, state)
    return _extended(problem, state, rows)


def _turned(problem: Problem, state: State, view: View) -> tuple[State, int]:
    """P turned so that the rows that lead on come first, and how many they are.

    Where a gap shows past k, these are what the triplets not done lack, and those that no gap tells
    from them; the others wait, and the bounds know of them. P stays whole where it is not its bar
    that keeps a triplet from being done, and, since close values want a wide block, once a narrow
    one has not brought the widest bar down as it should.
    """
    seen = gaps(view.S, view.E.norm(dim=1), problem.k)
    end = next((j for j in seen if j >= problem.k), None)
    if state.trial_until or end is None:
        return state, len(state.P)
    if view.bounds[view.done] <= wanted(problem, state, view.S):
        return state, len(state.P)
    widest = view.bounds[view.done :].max().item()
    if widest > state.narrowed / _GAIN:
        return replace(state, narrowed=0.0), len(state.P)
    leading = view.E[view.done : end]
    turn = torch.linalg.svd(leading)[2]
    P, T = turn.to(state.P.device) @ state.P, state.T @ turn.T
    return replace(state, P=P, T=T, narrowed=widest), min(leading.shape)


def _extended(problem: Problem, state: State, rows: int) -> State:
    """One block more in both bases, by the first rows of P: two network passes of as many."""
    A, At = _products(problem)
    following, rest = state.P[:rows], state.P[rows:]
    AP = A(following)
    scale = max(state.scale, AP.norm(dim=1).max().item()) if len(AP) else state.scale
    # Below this, a direction is rounding: it would only cost a probe.
    drop = 10 * problem.resolution * scale
    Q, along, R = orthonormal(AP, state.U, drop, problem.resolution)
    V, U = (grown(x, y, state.capacity) for x, y in ((state.V, following), (state.U, Q)))
    m, n = state.B.shape
    B = torch.zeros(len(U), len(V), dtype=torch.float64)
    B[:m, :n], B[:m, n:], B[m:, n:] = state.B, along.T, R.T
    known = grown(V, rest, state.capacity)
    AtQ = At(Q) if len(Q) else Q.new_empty(0, V.shape[1])
    P, back, L = orthonormal(AtQ, known, drop, problem.resolution)
    T = torch.zeros(len(U), len(rest) + len(P), dtype=torch.float64)
    T[:m, : len(rest)] = state.T[:, rows:]
    T[m:] = torch.cat([back[:, len(V) :], L], 1)
    P = torch.cat([rest, P])
    # What A and A^T say of the same entries of B.
    differences = _norm(along.T - state.T[:, :rows]), _norm(back[:, : len(V)] - B[m:])
    return replace(
        state,
        V=V,
        U=U,
        B=B,
        P=P,
        T=T,
        scale=scale,
        rounding=max(state.rounding, *differences),
        iteration=state.iteration + 1,
    )


def _proof(problem: Problem, state: State, view: View) -> Proof | None:
    """Bars that nothing hidden can make wrong."""
    device, count = state.U.device, problem.k + BEYOND
    U, V = view.left[:count].to(device) @ state.U, view.right[:count].to(device) @ state.V
    scale, rounding = view.S[:1].sum().item(), rounding_of(problem, state, view.S)
    allowed = max(problem.tol * scale - rounding, rounding)
    risk = RISK / 2 ** (state.proofs + 1)

    def tell(widest: float) -> None:
        error = widest / scale if scale else 0.0
        sigma = view.S[problem.k - 1].item() if len(view.S) >= problem.k else 0.0
        problem.report(problem.k, state.iteration, sigma, error, view.done, state.restarts)

    return prove(problem, _products(problem), (U, V), view.S, view.E, allowed, risk, tell)


def _led_on(problem: Problem, state: State, rows: Tensor) -> State | None:
    """One block more, with rows that lead to what has been hidden; None if nothing is left."""
    added, _, _ = orthonormal(rows, torch.cat([state.V, state.P]), drop=_NEW)
    P = torch.cat([state.P, added])
    if len(P) == 0 or problem.passes + 2 * len(P) > problem.max_passes:
        return None
    T = torch.cat([state.T, state.T.new_zeros(len(state.T), len(added))], 1)
    state = replace(state, P=P, T=T, proofs=state.proofs + 1, narrowed=inf)
    if len(state.U) + len(P) > state.capacity:
        state = _restarted(problem, state)
    return _extended(problem, state, len(P))


def _norm(x: Tensor) -> float:
    return torch.linalg.matrix_norm(x, 2).item() if x.numel() else 0.0


def _restarted(problem: Problem, state: State) -> State:
    """The best triplets alone: the k wanted and half of the room beyond them."""
    left, S, right = torch.linalg.svd(state.B, full_matrices=False)
    kept = min(max(problem.k, (problem.k + state.capacity) // 2), len(S))
    left, right, device = left.T[:kept], right[:kept], state.U.device
    return replace(
        state,
        V=right.to(device) @ state.V,
        U=left.to(device) @ state.U,
        B=S[:kept].diag(),
        T=left @ state.T,
        restarts=state.restarts + 1,
    )


def _copies_may_hide(problem: Problem, state: State, view: View) -> bool:
    """Whether more copies of a found value may exist: b random rows show b of them at most."""
    if len(state.V) == state.V.shape[1]:
        return False
    if len(state.P) == 0:
        return True
    runs = runs_of(state, view.S, problem.k)
    return bool((runs <= problem.tol * view.S[0]).any())


def _same(S: Tensor, before: Tensor, tol: float) -> bool:
    return len(S) == len(before) and bool(((S - before).abs() <= tol * S[:1]).all())


def _on_trial(state: State) -> bool:
    return len(state.P) > 0 and state.iteration < state.trial_until


def _widened(problem: Problem, state: State, found: Tensor) -> State | None:
    """Random rows beside P, which nothing leads to yet; None if the space is spanned already."""
    known = torch.cat([state.V, state.P])
    size = known.shape[1]
    rows = min(state.block, size - len(known))
    if rows == 0 == len(state.P):
        return None
    added = known[:0]
    if rows:
        added, _, _ = orthonormal(problem.random(size, rows), known)
    return replace(
        state,
        P=torch.cat([state.P, added]),
        T=torch.cat([state.T, state.T.new_zeros(len(state.T), len(added))], 1),
        settled=found,
        trial_until=2 * state.iteration,
    )


def _report(problem: Problem, state: State, view: View) -> None:
    at = min(view.done, problem.k - 1, len(view.S) - 1)
    sigma = error = 0.0
    if at >= 0:
        sigma, error = view.S[at].item(), view.bounds[at].item()
        error = error / view.S[0].item() if error else 0.0
    problem.report(at + 1, state.iteration, sigma, error, view.done, state.restarts)


def _found(
    problem: Problem, state: State, view: View, count: int, bars: Tensor | None = None
) -> Found:
    """The first triplets, with zeros where the bases end: what is left of F is zero there.

    `bars` (count,) are known to hold.
    """
    device, (small, _) = state.U.device, sorted(problem.op.shape)
    seen, spanned = view.S[: problem.k + BEYOND], len(state.P) == 0
    V, U = view.right[:count].to(device) @ state.V, view.left[:count].to(device) @ state.U
    missing = max(0, count - len(seen)) if state.iteration else 0
    for _ in range(missing):  # any vectors serve
        U, V = torch.cat([U, problem.unit_outside(U)]), torch.cat([V, problem.unit_outside(V)])
    S = torch.cat([seen, seen.new_zeros(missing)])
    known = view.bounds[:count]
    bounds = torch.cat([known, seen.new_full((missing,), 0.0 if spanned else inf)])
    residuals = torch.cat([view.E.norm(dim=1)[: len(seen)], bounds[len(seen) :]])
    # Zeros beyond the bases are known only where these leave no room for anything else.
    filled = torch.full((missing,), len(state.V) == small)
    proven = torch.cat([is_proven(known, residuals[: len(known)]), filled])
    if bars is not None:
        bounds, proven = bars, torch.ones_like(bars, dtype=torch.bool)
    following = S[count:]
    if spanned:  # nothing is below the last, or zero
        last = seen.new_tensor([0.0 if len(view.S) < small else -inf])
        following, residuals = torch.cat([following, last]), torch.cat([residuals, 0 * last.abs()])
    if _transposed(problem):
        U, V = V, U
    rounding = rounding_of(problem, state, view.S)
    certain = bars is not None
    return Found(U, V, S[:count], bounds, residuals, following, rounding, proven, certain)
