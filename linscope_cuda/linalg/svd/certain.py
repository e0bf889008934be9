"""Bars that hold whatever hides: a bound on the part of A that no triplet has shown.

With the first j triplets of a view A is, in bases that begin with theirs,

    A = [ S1  E1 ]        E1  what they lack, the residuals A^T u - sigma v, as rows,
        [ 0   X  ]        X   = (1 - U1 U1^T) A (1 - V1 V1^T), the rest.

Where |X| <= beta, A^T A <= M^T M with M = [S1 E1; 0 beta], and so sigma_i(A) <= sigma_i(M) for each
i; and sigma_i(A) >= S1_i, a Ritz value. No gap is asked for, and no value can hide.

beta comes from Lanczos with X^T X on a random unit vector q of d dimensions. After m steps the
next vector is p(X^T X) q, p(x) = prod (x - theta_i) / prod b_i, theta the Ritz values and b the
sizes of the recurrence; its length is 1. So with g = <q, the leading right singular vector of X>

    |g| p(|X|^2) <= 1,    P(|g| <= delta) <= delta (2 d / pi)^(1/2),

and |X|^2 is at most the x > theta_1 where p(x) = 1 / delta, unless |g| <= delta. Of c vectors
one has |g| > delta but for the c-th power of that probability, and the largest of their bounds
holds. p grows fast above theta_1: it is the polynomial that Lanczos found to be small below.
(Kuczynski and Wozniakowski, 1992; van Dorsselaer, Hochstenbach and van der Vorst, 2000.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .basis import grown
from .bounds import BEYOND
from .problem import Problem

# The probability that one of the bars does not hold.
RISK = 1e-6
# Random vectors: one alone takes the fewest products, several fewer batches.
CHAINS = 2
# Units of the dtype's resolution that a product of a unit vector is known to.
_NOISE = 10
# Bytes that the vectors may take.
_BYTES = 2**31
# Bounds are told after so many times the steps before.
_SELDOM = 1.05
# Halvings that find a number between two others.
_HALVINGS = 30

Product = Callable[[Tensor], Tensor]


def bars(S: Tensor, E: Tensor, beta: float, k: int, size: int) -> Tensor:
    """How much the first k values of A can be above those of S where |X| <= beta: (k,).

    S (j,) descends, E (j, p) holds the residuals in one orthonormal basis, both float64; A has
    `size` columns, of which S and E know j + p; values beyond the j count as 0.

        bars(torch.tensor([2.0, 1.0]), torch.tensor([[1e-3], [1e-2]]), beta=0.9, k=1, size=9)
    """
    j, p = E.shape
    known = torch.cat([S.diag(), E], 1)
    rest = torch.cat([S.new_zeros(p, j), beta * torch.eye(p, dtype=S.dtype)], 1)
    # As singular values, not as eigenvalues of squares, which would lose half of the digits.
    values = torch.linalg.svdvals(torch.cat([known, rest]))
    elsewhere = S.new_full((min(k, size - j - p),), beta)
    values = torch.cat([values, elsewhere]).sort(descending=True).values
    shown = torch.cat([S, S.new_zeros(max(0, k - j))])
    return (values[:k] - shown[:k]).clamp(min=0)


class Split(NamedTuple):
    """The first j triplets, and the beta up to which the first k bars are as wide as allowed."""

    j: int
    beta: float


def split(S: Tensor, E: Tensor, k: int, size: int, allowed: float) -> Split:
    """Where to divide what is known so that the rest is the easiest to bound.

    split(S, E, k=8, size=V.shape[1], allowed=1e-5)
    """
    last = min(len(S), k + BEYOND)
    # What |X| is about, or above: the following Ritz value, or rounding.
    following = torch.cat([S, S[-1:] if E.shape[1] else S.new_zeros(1)]).tolist()
    best, ease = Split(last, 0.0), 1.0
    for j in range(min(k, last), last + 1):

        def fits(beta: float, j: int = j) -> bool:
            return bool((bars(S[:j], E[:j], beta, k, size) <= allowed).all())

        # The higher |X| may be above what it is about, the sooner it is known to be below.
        if not fits(ease * following[j]):
            continue
        low, high = ease * following[j], 2 * S[:1].sum().item() + allowed
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        best = Split(j, low)
        if not following[j]:
            break
        ease = low / following[j]
    return best


class Proof(NamedTuple):
    """Bars (k,) that hold, if they are as wide as allowed, and rows that lead to what they lack."""

    bars: Tensor
    holds: bool
    rows: Tensor


def prove(
    problem: Problem,
    products: tuple[Product, Product],
    bases: tuple[Tensor, Tensor],
    S: Tensor,
    E: Tensor,
    allowed: float,
    risk: float,
    tell: Callable[[float], object],
) -> Proof | None:
    """Bars on the first k values, but for `risk`: with U and V, rows, what is known of A.

    It ends where the bars are as wide as allowed, cannot become so, or passes or memory end; None
    where there are no passes at all. `tell` is given the widest bar so far.
    """
    (A, At), (U, V), k, size = products, bases, problem.k, bases[1].shape[1]
    if not E.shape[1] and len(S) == size:
        return Proof(S.new_zeros(k), True, U[:0])
    j, beta = split(S, E, k, size, allowed)
    q = problem.random(size, CHAINS)
    steps = min(_BYTES // q.nbytes, (problem.max_passes - problem.passes) // (2 * CHAINS))
    noise = _NOISE * problem.resolution * S[:1].sum().item()
    proof = None
    for bound in bounds_of_rest(A, At, U[:j], V[:j], q, risk, noise, steps):
        widths = bars(S[:j], E[:j], bound.most, k, size)
        proof = Proof(widths, bool((widths <= allowed).all()), bound.rows)
        tell(widths.max().item())
        if proof.holds or bound.least > beta:
            break
    return proof


class Bound(NamedTuple):
    """|X| lies between `least` and, but for the risk, `most`; `rows` lead to what is of `least`."""

    least: float
    most: float
    rows: Tensor


def bounds_of_rest(
    A: Product,
    At: Product,
    U: Tensor,
    V: Tensor,
    q: Tensor,
    risk: float,
    noise: float,
    steps: int,
) -> Iterator[Bound]:
    """Bounds on X = (1 - U^T U) A (1 - V^T V), closer each time.

    U and V are orthonormal rows, q (c, n) normal numbers, all float64; each of `steps` takes a
    product of c rows each way. A product of a unit vector is known to `noise`. The iterator ends
    earlier where the rows have led everywhere that they can.

        for bound in bounds_of_rest(A, At, U, V, torch.randn(2, n).double(), 1e-6, 1e-15, 99): ...
    """
    room = V.shape[1] - len(V)
    delta = risk ** (1 / len(q)) * math.sqrt(math.pi / (2 * room))
    chains = [Chain(row, V) for row in _outside(q, V)]
    told = 0
    for step in range(1, steps + 1):
        active = [chain for chain in chains if chain.goes_on]
        image = _outside(A(torch.cat([chain.last for chain in active])), U)
        back = _outside(At(image), V)
        for chain, row, size in zip(active, back.split(1), image.norm(dim=1).tolist(), strict=True):
            chain.step(row, size, noise)
        ends = step == steps or not any(chain.goes_on for chain in chains)
        # Ritz values cost more with each step, and change less.
        if step < _SELDOM * told and not ends:
            continue
        told = step
        ritz = [chain.ritz() for chain in chains]
        least = max(r.values[-1].item() for r in ritz)
        most = max(r.bound(delta) for r in ritz)
        yield Bound(
            math.sqrt(max(least, 0.0)),
            math.sqrt(max(most, 0.0)),
            torch.cat([chain.along(r.leading) for chain, r in zip(chains, ritz, strict=True)]),
        )
        if ends:
            return


class Ritz(NamedTuple):
    """What a chain knows of X^T X: eigenvalues, ascending, and the sum of log b_i."""

    values: Tensor
    leading: Tensor
    sizes: float

    def bound(self, delta: float) -> float:
        """The x above all values where p(x) = 1 / delta."""
        sizes = self.sizes - math.log(delta)
        # Each factor of p is at least that of theta_1.
        low, high = 0.0, math.exp(sizes / len(self.values))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            above = (self.values[-1] - self.values + middle).log().sum().item() > sizes
            low, high = (low, middle) if above else (middle, high)
        return self.values[-1].item() + high


class Chain:
    """Lanczos from one row q outside of V, fully orthogonalised."""

    def __init__(self, q: Tensor, V: Tensor):
        self.V = V
        self.room = V.shape[1] - len(V)  # dimensions
        self.rows = (q / q.norm())[None]
        self.diagonal: list[float] = []
        self.beside: list[float] = []
        self.goes_on = True

    @property
    def last(self) -> Tensor:
        return self.rows[-1:]

    def step(self, row: Tensor, size: float, noise: float) -> None:
        """`row` (1, n) is X^T X times the last one, `size` |X times the last one|."""
        self.diagonal.append(size**2)
        row = _outside(row, self.rows)
        beside = row.norm().item() if len(self.rows) < self.room else 0.0
        self.goes_on = beside > 0
        # Of less than rounding another random row is made: it shows as much as any.
        self.beside.append(max(beside, noise * size) if self.goes_on else 0.0)
        if self.goes_on:
            self.rows = grown(self.rows, self._unit(row), self.room)

    def _unit(self, row: Tensor) -> Tensor:
        """Along row, and orthogonal to all before; what rounding left is little at first."""
        while True:
            row = _outside(_outside(row / row.norm(), self.rows), self.V)
            if row.norm() > 0.5:
                return row / row.norm()

    def ritz(self) -> Ritz:
        m = len(self.diagonal)
        T = torch.tensor(self.diagonal, dtype=torch.float64).diag()
        beside = torch.tensor(self.beside[: m - 1], dtype=torch.float64)
        if m > 1:
            T = T + beside.diag(1) + beside.diag(-1)
        values, vectors = torch.linalg.eigh(T)
        return Ritz(
            values, vectors[:, -1], sum(math.log(b) if b else -math.inf for b in self.beside)
        )

    def along(self, weights: Tensor) -> Tensor:
        """The row (1, n) of these weights."""
        return weights[None].to(self.rows.device) @ self.rows[: len(weights)]


def _outside(x: Tensor, basis: Tensor) -> Tensor:
    """The rows of x less their parts along orthonormal rows, to rounding."""
    for _ in range(2):
        x = x - (x @ basis.T) @ basis
    return x
