"""How often the error bars of `ls.svd` are wrong, on random matrices whose singular values are
known.

    python tools/error_bars.py [MATRICES OF EACH KIND, 300] [FIRST SEED, 0]

A bound is wrong where no singular value (or zero, of a matrix that is not square) lies within it,
an estimate where the i-th largest does not. For bounds, too, the table counts the i-th that are not
within: no bound says that they are.
"""

import random
import sys
from collections.abc import Callable

import torch

import linscope_cuda as ls

VALUES = 60


def clusters(rng: random.Random, least: int, most: int) -> list[float]:
    """Groups of near copies, 1e-9 to 1e-4 of their value apart."""
    values, at = [], 1.0
    while len(values) < VALUES:
        at *= rng.uniform(0.5, 0.95)
        width = at * 10 ** rng.uniform(-9, -4)
        values += [at + width * rng.random() for _ in range(rng.randint(least, most))]
    return values[:VALUES]


KINDS: dict[str, Callable[[random.Random], list[float]]] = {
    "1 / i, each moved by a tenth": lambda rng: [
        rng.uniform(0.9, 1.1) / (1 + i) for i in range(VALUES)
    ],
    "flat": lambda rng: [1 - 1e-3 * i * rng.random() for i in range(VALUES)],
    "random": lambda rng: [rng.random() for _ in range(VALUES)],
    "copies of ten numbers": lambda rng: [float(rng.randint(1, 10)) for _ in range(VALUES)],
    "clusters of six": lambda rng: clusters(rng, 6, 6),
    "clusters of five to nine": lambda rng: clusters(rng, 5, 9),
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


def wrong_bars(kind: str, seed: int) -> tuple[torch.Tensor, float]:
    """Of one matrix: bounds, wrong ones, those without the i-th, estimates, wrong ones; and the
    largest error of a wrong one over sigma_1.
    """
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    spectrum = torch.tensor(sorted(KINDS[kind](rng), reverse=True), dtype=torch.float64)
    rows, columns = rng.choice([(80, 70), (70, 70), (70, 90)])
    k = rng.randint(1, 12)
    op = ls.MatrixOperator(matrix(spectrum, rows, columns, generator))
    found = ls.svd(op, k, generator=generator, progress=False)
    # All have zeros beyond their 60 values.
    nearest = (found.S[:, None] - torch.cat([spectrum, torch.zeros(1)])).abs().amin(1)
    other = (found.S - spectrum[:k]).abs() > found.errors
    sure = found.proven
    counted = (sure, sure & (nearest > found.errors), sure & other, ~sure, ~sure & other)
    furthest = ((found.S - spectrum[:k]).abs() * counted[-1]).max() / spectrum[0]
    return torch.stack(counted).sum(1), furthest.item()


def main(count: int = 300, first: int = 0) -> None:
    torch.set_num_threads(1)
    columns = ("bounds", "wrong", "not the i-th", "estimates", "wrong", "matrices with a wrong bar")
    last = "largest error of a wrong one / sigma_1"
    print(f"{count} matrices of each kind, seeds from {first}\n")
    print(f"| {'spectrum':28} | {' | '.join(columns)} | {last} |")
    print("|---" * (2 + len(columns)) + "|")
    total, most = torch.zeros(len(columns), dtype=torch.int64), 0.0
    for kind in KINDS:
        each = [wrong_bars(kind, seed) for seed in range(first, first + count)]
        bars, furthest = torch.stack([b for b, _ in each]), max(far for _, far in each)
        wrong = (bars[:, [1, 4]].sum(1) > 0).sum()
        row = torch.cat([bars.sum(0), wrong[None]])
        total, most = total + row, max(most, furthest)
        print(_line(kind, row, furthest), flush=True)
    print(_line("all", total, most))


def _line(kind: str, row: torch.Tensor, furthest: float) -> str:
    return f"| {kind:28} | {' | '.join(map(str, row.tolist()))} | {furthest:.0e} |"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
