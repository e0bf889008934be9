"""Bars that hold whatever hides: `svd(..., certain=True)`, and what it stands on."""

import importlib.util
import math
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

import linscope_cuda as ls
from linscope_cuda.linalg.svd.certain import bars, bounds_of_rest, split

ROOT = Path(__file__).parents[2]


def numbers(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def orthonormal(rows: int, size: int, seed: int) -> Tensor:
    return torch.linalg.qr(numbers(size, rows, seed=seed))[0].T


@pytest.mark.parametrize("seed", range(20))
def test_no_rest_below_beta_goes_past_the_bars(seed):
    rng = random.Random(seed)
    j, p, others = rng.randint(1, 6), rng.randint(0, 4), rng.randint(0, 5)
    S = numbers(j, seed=seed).abs().sort(descending=True).values
    E = 10 ** rng.uniform(-4, 0) * numbers(j, p, seed=seed + 100)
    size, k, beta = j + p + others, rng.randint(1, j), rng.uniform(0, 2)
    found = bars(S, E, beta, k, size)
    known = torch.cat([S.diag(), E, torch.zeros(j, others)], 1)
    largest = torch.zeros(k)
    for trial in range(50):
        X = numbers(p + others + 2, p + others, seed=1000 * seed + trial)
        if trial == 0:  # the worst one: all of its singular values are beta
            X = torch.linalg.qr(X)[0]
        X = beta * X / max(torch.linalg.matrix_norm(X, 2).item(), 1e-9) if X.numel() else X
        A = torch.cat([known, torch.cat([torch.zeros(len(X), j), X], 1)])
        above = torch.linalg.svdvals(A)[:k] - S[:k]
        assert (above <= found + 1e-12).all()
        largest = torch.maximum(largest, above)
    assert torch.allclose(largest, found, rtol=1e-9, atol=1e-12)  # and are no wider than they must


@pytest.mark.parametrize("k", [1, 3, 6])
def test_a_split_is_allowed_and_not_more(k):
    S = torch.tensor([5.0, 4.0, 3.0, 2.5, 2.4, 1.0, 0.9, 0.1], dtype=torch.float64)
    E = 1e-3 * numbers(8, 3, seed=0)
    allowed = 1e-4
    j, beta = split(S, E, k, size=40, allowed=allowed)
    assert k <= j < len(S) and beta > S[j]
    assert bars(S[:j], E[:j], beta * (1 - 1e-6), k, 40).max() <= allowed
    assert bars(S[:j], E[:j], beta * (1 + 1e-6), k, 40).max() > allowed


def rest(A: Tensor, U: Tensor, V: Tensor) -> Tensor:
    return (torch.eye(len(A)) - U.T @ U) @ A @ (torch.eye(A.shape[1]) - V.T @ V)


def bounded(A: Tensor, U: Tensor, V: Tensor, risk: float, chains: int, seed: int):
    q = numbers(chains, A.shape[1], seed=seed)
    return bounds_of_rest(lambda v: v @ A.T, lambda u: u @ A, U, V, q, risk, 1e-15, 99)


@pytest.mark.parametrize("chains", [1, 2, 5])
@pytest.mark.parametrize("seed", range(10))
def test_the_rest_is_between_its_bounds(seed, chains):
    rng = random.Random(seed)
    rows, columns, j = rng.randint(20, 60), rng.randint(20, 60), rng.randint(0, 9)
    A = numbers(rows, columns, seed=seed)
    A = A @ torch.diag(torch.linspace(1, 0, columns, dtype=torch.float64) ** rng.randint(0, 9))
    U, V = orthonormal(j, rows, seed + 1), orthonormal(j, columns, seed + 2)
    norm = torch.linalg.matrix_norm(rest(A, U, V), 2).item()
    widths = []
    for bound in bounded(A, U, V, 1e-6, chains, seed + 3):
        assert bound.least <= norm * (1 + 1e-12) and norm <= bound.most * (1 + 1e-12)
        widths.append(bound.most - bound.least)
        row = bound.rows[0] / bound.rows[0].norm()
        assert torch.linalg.vector_norm(V @ row) < 1e-12
    assert widths[-1] <= 1e-6 * norm and widths[0] > 0.1 * norm


def test_bounds_of_a_large_risk_fail_no_more_often_than_they_may():
    """The probability is that of the start alone, however many steps are looked at."""
    risk, draws, failed = 0.3, 400, 0
    A = numbers(30, 30, seed=0) / 30 + torch.diag(torch.tensor([1.5] + 29 * [1.0]).double())
    norm = torch.linalg.matrix_norm(A, 2).item()
    none = A[:0]
    for seed in range(draws):
        told = bounded(A, none, none, risk, 1, seed)
        failed += any(bound.most < norm for bound, _ in zip(told, range(6), strict=False))
    # Three standard deviations above; some fail, or the test would show nothing.
    assert 0 < failed <= draws * risk + 3 * math.sqrt(draws * risk * (1 - risk))


def hidden(seed: int = 0, size: int = 50, block: int = 5) -> tuple[ls.MatrixOperator, Tensor]:
    """A matrix whose largest value the first random block of that seed does not see."""
    unseen = torch.linalg.qr(numbers(block, size, seed=seed).T, mode="complete")[0][:, -1]
    spectrum = torch.tensor([0.5**i for i in range(size)], dtype=torch.float64)
    V = torch.linalg.qr(torch.cat([unseen[:, None], numbers(size, size - 1, seed=9)], 1))[0]
    return ls.MatrixOperator(orthonormal(size, size, 8).T * spectrum @ V.T), spectrum


def test_a_value_that_hides_from_the_start_is_found():
    op, spectrum = hidden()
    plain, sure = (
        ls.svd(op, 3, generator=torch.Generator().manual_seed(0), progress=False, certain=certain)
        for certain in (False, True)
    )
    assert abs(plain.S[0] - spectrum[1]) < 1e-6  # or the start sees it, and nothing is tried here
    assert ((sure.S - spectrum[:3]).abs() <= sure.errors).all() and sure.converged
    assert sure.certain and sure.proven.all() and not plain.certain


def error_bars():
    spec = importlib.util.spec_from_file_location("error_bars", ROOT / "tools/error_bars.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", error_bars().KINDS)
def test_no_bar_is_wrong(kind):
    tool = error_bars()
    for seed in range(5):
        counted, _ = tool.of_one(kind, seed, certain=True)
        assert counted.matrices == 0 and counted.bounds == counted.triplets, seed


@pytest.mark.parametrize(
    ("shape", "values", "k"),
    [
        ((9, 7), [3.0, 2.0], 4),  # more than the rank
        ((7, 9), [], 2),  # zero
        ((6, 6), 6 * [1.0], 6),  # all of it
        ((5, 1), [2.0], 1),
        ((1, 5), [2.0], 1),
        ((40, 30), 30 * [1.0], 3),  # one value alone
        ((40, 30), [1.0] + 29 * [1e-9], 5),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_small_and_singular(shape, values, k, dtype):
    size = min(shape)
    spectrum = torch.zeros(size, dtype=torch.float64)
    spectrum[: len(values)] = torch.tensor(values, dtype=torch.float64)
    A = orthonormal(size, shape[0], 1).T * spectrum @ orthonormal(size, shape[1], 2)
    found = ls.svd(ls.MatrixOperator(A.to(dtype)), k, certain=True, progress=False)
    assert ((found.S - spectrum[:k]).abs() <= found.errors).all()
    assert found.certain and found.proven.all() and found.converged


def test_bars_that_do_not_get_there_say_so():
    """Values 1e-4 apart, more than the passes suffice for."""
    spectrum = 1 - 1e-4 * torch.arange(400, dtype=torch.float64)
    A = orthonormal(400, 400, 1).T * spectrum @ orthonormal(400, 400, 2)
    found = ls.svd(ls.MatrixOperator(A), 3, tol=1e-7, certain=True, progress=False, max_passes=300)
    assert not found.converged and not found.certain and found.passes <= 300
    more = ls.svd(ls.MatrixOperator(A), 3, tol=1e-7, certain=True, progress=False, max_passes=2000)
    assert more.passes <= 2000 and more.certain
    assert ((more.S - spectrum[:3]).abs() <= more.errors).all()


def test_only_lanczos_is_certain():
    with pytest.raises(ValueError, match="certain for \"lanczos\" only, was given it for 'paper'"):
        ls.svd(ls.MatrixOperator(torch.eye(3)), 1, "paper", certain=True)


def test_a_network(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(5, 2, 3)
    ).double()
    op = ls.LinearInterpreter(model, torch.randn(1, 3, 7, 6, dtype=torch.float64))
    found = ls.svd(op, 6, certain=True, progress=False, checkpoint=tmp_path / "state")
    true = torch.linalg.svdvals(op.todense())[:6]
    assert ((found.S - true).abs() <= found.errors).all() and found.converged
    again = ls.svd(op, 6, certain=True, progress=False, checkpoint=tmp_path / "state")
    assert torch.equal(again.S, found.S)
    with pytest.raises(ValueError, match="its certain is True, False is wanted"):
        ls.svd(op, 6, progress=False, checkpoint=tmp_path / "state")
