"""Trace and Frobenius norm: beside the dense ones, and their bars over many draws."""

import pytest
import torch
from torch import nn

import linscope_cuda as ls


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def matrix(rows, columns, decay, seed=0):
    generator = seeded(seed)
    left, right = (
        torch.linalg.qr(torch.randn(n, min(rows, columns), generator=generator).double())[0]
        for n in (rows, columns)
    )
    sizes = (1.0 + torch.arange(min(rows, columns), dtype=torch.float64)) ** -decay
    return left * sizes @ right.T


SQUARE = {
    "slow": matrix(200, 200, 0.3) + 0.1 * torch.eye(200),
    "fast": matrix(200, 200, 2.0, seed=1),
    "identity": torch.eye(200, dtype=torch.float64),
    "not symmetric": torch.randn(200, 200, generator=seeded(2)).double(),
}


@pytest.mark.parametrize("name", SQUARE)
def test_traces_are_unbiased_and_bars_tell_their_spread(name):
    A = SQUARE[name]
    op, true = ls.MatrixOperator(A), A.trace().item()
    found = [ls.trace(op, 40, seeded(seed)) for seed in range(200)]
    values = torch.tensor([f.value for f in found])
    spread = (values - true).square().mean().sqrt().item()
    rounding = 1e-12 * A.norm().item()
    assert abs(values.mean().item() - true) <= 4 * spread / 200**0.5 + rounding
    typical = torch.tensor([f.error for f in found]).square().mean().sqrt().item()
    assert spread / 2 - rounding <= typical <= 2 * spread + rounding
    within = sum(abs(f.value - true) <= 3 * f.error + rounding for f in found)
    assert within >= 190


def test_it_is_better_than_plain_sampling_where_values_decay():
    A, op = SQUARE["fast"], ls.MatrixOperator(SQUARE["fast"])
    error = torch.tensor([ls.trace(op, 40, seeded(s)).value for s in range(50)]) - A.trace()
    omega = torch.randn(50, 40, 200, generator=seeded(9)).double()
    plain = torch.einsum("bki,ij,bkj->bk", omega, A, omega).mean(1) - A.trace()
    assert error.square().mean() < plain.square().mean() / 100


@pytest.mark.parametrize(("rows", "columns"), [(60, 90), (90, 60), (90, 90)])
def test_frobenius_norms(rows, columns):
    A = matrix(rows, columns, 0.5)
    found = [ls.frobenius(ls.MatrixOperator(A), 30, seeded(seed)) for seed in range(100)]
    assert sum(abs(f.value - A.norm().item()) <= 3 * f.error for f in found) >= 90
    assert max(f.error for f in found) < 0.1 * A.norm().item()


def test_enough_samples_are_exact():
    A = SQUARE["not symmetric"][:7, :7].contiguous()
    assert ls.trace(ls.MatrixOperator(A), 14) == (pytest.approx(A.trace().item()), 0.0)
    found = ls.frobenius(ls.MatrixOperator(A), 20)
    assert found.value == pytest.approx(A.norm().item()) and found.error == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_low_rank_and_zero(dtype):
    A = matrix(100, 100, 0.0)[:, :3] @ torch.randn(3, 100, generator=seeded(4)).double()
    found = ls.trace(ls.MatrixOperator(A.to(dtype)), 40)
    assert found.value == pytest.approx(A.trace().item(), abs=1e-3 if dtype.itemsize == 4 else 1e-8)
    assert ls.trace(ls.MatrixOperator(torch.zeros(50, 50, dtype=dtype)), 8) == (0, 0)
    assert ls.frobenius(ls.MatrixOperator(torch.zeros(50, 30, dtype=dtype)), 8) == (0, 0)


def test_a_denoiser():
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1, bias=False))
    model = nn.Sequential(*layers).double()
    op = ls.LinearInterpreter(model, torch.randn(1, 1, 12, 11, dtype=torch.float64))
    found, dense = ls.trace(op, 100), op.todense()
    assert abs(found.value - dense.trace().item()) <= 4 * found.error
    assert op.tosparse().diagonal().sum() == pytest.approx(dense.trace().item())
    skew = ls.frobenius(op - op.T, 100)
    assert abs(skew.value - (dense - dense.T).norm().item()) <= 4 * skew.error


@pytest.mark.parametrize(
    ("op", "samples", "error", "text"),
    [
        (torch.eye(3), 8, TypeError, "wants a MatrixFreeOperator, was given Tensor"),
        (ls.MatrixOperator(torch.eye(4)), 3, ValueError, "4 or more, were given 3"),
        (
            ls.MatrixOperator(torch.ones(2, 3)),
            8,
            ValueError,
            r"shape \(3,\), not \(2,\)",
        ),
    ],
)
def test_bad_input(op, samples, error, text):
    with pytest.raises(error, match=text):
        ls.trace(op, samples)
