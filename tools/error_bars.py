"""How often the error bars of `ls.svd` are wrong, on random matrices whose singular values are
known.

    python tools/error_bars.py             300 matrices of each kind
    python tools/error_bars.py --certain   the same with certain=True

A bound is wrong where no singular value (or zero, of a matrix that is not square) lies within it,
an estimate or a certain bar where the i-th largest does not. For bounds, too, the table counts the
i-th that are not within: no bound says that they are. Bases are random: the iteration, whose start
is random, sees of a matrix its singular values alone.
"""

import argparse
import random
from collections.abc import Callable
from typing import NamedTuple

import torch

import linscope_cuda as ls

VALUES = 60
# A matrix has its values to this part of the largest: it is rounded.
ROUNDED = 1e-14


def clusters(rng: random.Random, least: int, most: int) -> list[float]:
    """Groups of near copies, 1e-9 to 1e-4 of their value apart."""
    values, at = [], 1.0
    while len(values) < VALUES:
        at *= rng.uniform(0.5, 0.95)
        width = at * 10 ** rng.uniform(-9, -4)
        values += [at + width * rng.random() for _ in range(rng.randint(least, most))]
    return values[:VALUES]


def jordan(rng: random.Random) -> list[float]:
    """Of a matrix with few eigenvectors: blocks with ones beside the diagonal, nearly equal."""
    A = torch.zeros(VALUES, VALUES, dtype=torch.float64)
    at = 0
    while at < VALUES:
        size = min(rng.randint(2, 9), VALUES - at)
        block = A[at : at + size, at : at + size]
        block.fill_diagonal_(rng.choice([0.3, 0.5, 0.5 + 1e-9]))
        block.diagonal(1).fill_(1 + 1e-7 * rng.random())
        at += size
    return torch.linalg.svdvals(A).tolist()


def low_rank(rng: random.Random) -> list[float]:
    rank, noise = rng.randint(1, 12), 10 ** rng.uniform(-12, -2)
    return [rng.random() if i < rank else noise * rng.random() for i in range(VALUES)]


KINDS: dict[str, Callable[[random.Random], list[float]]] = {
    "1 / i, each moved by a tenth": lambda rng: [
        rng.uniform(0.9, 1.1) / (1 + i) for i in range(VALUES)
    ],
    "flat": lambda rng: [1 - 1e-3 * i * rng.random() for i in range(VALUES)],
    "random": lambda rng: [rng.random() for _ in range(VALUES)],
    "copies of ten numbers": lambda rng: [float(rng.randint(1, 10)) for _ in range(VALUES)],
    "clusters of six": lambda rng: clusters(rng, 6, 6),
    "clusters of five to nine": lambda rng: clusters(rng, 5, 9),
    "graded": lambda rng: [10 ** (-0.2 * i - 0.1 * rng.random()) for i in range(VALUES)],
    "low rank and noise": low_rank,
    "nearly defective": jordan,
}


def matrix(spectrum: torch.Tensor, rows: int, columns: int, generator: torch.Generator):
    """A matrix with these singular values, and zeros."""
    left, right = (
        torch.linalg.qr(torch.randn(size, len(spectrum), generator=generator, dtype=torch.float64))[
            0
        ]
        for size in (rows, columns)
    )
    return left * spectrum @ right.T


class Counted(NamedTuple):
    """Of one matrix's triplets, or of many."""

    triplets: int
    bounds: int
    wrong_bounds: int
    not_ith: int
    estimates: int
    wrong_estimates: int
    matrices: int  # with a wrong bar
    unfinished: int  # not converged
    passes: int

    def __add__(self, other: tuple) -> "Counted":
        return Counted._make(a + b for a, b in zip(self, other, strict=True))


def of_one(kind: str, seed: int, certain: bool = False) -> tuple[Counted, float]:
    """What holds of the bars of one matrix, and the largest error of a wrong one over sigma_1."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    spectrum = torch.tensor(sorted(KINDS[kind](rng), reverse=True), dtype=torch.float64)
    rows, columns = rng.choice([(80, 70), (70, 70), (70, 90)])
    k = rng.randint(1, 12)
    op = ls.MatrixOperator(matrix(spectrum, rows, columns, generator))
    found = ls.svd(op, k, generator=generator, progress=False, certain=certain)
    # All have zeros beyond their 60 values.
    nearest = (found.S[:, None] - torch.cat([spectrum, torch.zeros(1)])).abs().amin(1)
    errors, sure = found.errors + ROUNDED * spectrum[0], found.proven
    other = (found.S - spectrum[:k]).abs() > errors
    wrong = sure & (other if certain else nearest > errors)
    guessed = ~sure & other
    counts = [int(mask.sum()) for mask in (sure, wrong, sure & other, ~sure, guessed)]
    ends = int((wrong | guessed).any()), int(not found.converged), found.passes
    furthest = ((found.S - spectrum[:k]).abs() * (wrong | guessed)).max() / spectrum[0]
    return Counted._make([k, *counts, *ends]), furthest.item()


def main() -> None:
    parser = argparse.ArgumentParser(description="How often the error bars of ls.svd are wrong.")
    parser.add_argument("--count", type=int, default=300, help="matrices of each kind")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--certain", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = [name.replace("_", " ") for name in Counted._fields]
    print(f"{args.count} matrices of each kind, seeds from {args.first}\n")
    print(f"| {'spectrum':28} | {' | '.join(names)} | largest error of a wrong one / sigma_1 |")
    print("|---" * (2 + len(names)) + "|")
    whole, furthest = Counted._make([0] * len(names)), 0.0
    for kind in KINDS:
        total, most = Counted._make([0] * len(names)), 0.0
        for seed in range(args.first, args.first + args.count):
            counted, far = of_one(kind, seed, args.certain)
            total, most = total + counted, max(most, far)
        whole, furthest = whole + total, max(furthest, most)
        print(_line(kind, total, most), flush=True)
    print(_line("all", whole, furthest))


def _line(kind: str, counted: Counted, furthest: float) -> str:
    return f"| {kind:28} | {' | '.join(map(str, counted))} | {furthest:.0e} |"


if __name__ == "__main__":
    main()
