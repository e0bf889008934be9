"""Block Lanczos against dense singular values, on spectra that are hard for it."""

import pytest
import torch

import linscope_cuda as ls
from linscope_cuda.linalg.svd import lanczos


def matrix(spectrum, N, n, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def orthonormal(size):
        x = torch.randn(size, len(spectrum), generator=generator, dtype=torch.float64)
        return torch.linalg.qr(x)[0]

    return orthonormal(N) * torch.tensor(spectrum, dtype=torch.float64) @ orthonormal(n).T


# spectrum, N, n, k
CASES = {
    "decaying": ([0.9**i for i in range(60)], 80, 60, 8),
    "flat": ([1 - 1e-3 * i for i in range(60)], 80, 60, 5),
    "clustered": (
        [1 - 1e-4 * i for i in range(5)] + [0.5 * 0.97**i for i in range(95)],
        100,
        200,
        8,
    ),
    "more copies than a block": ([2.0] * 12 + [1.0] * 20, 50, 40, 14),
    "all equal": ([1.0] * 40, 40, 40, 20),
    "copies behind others": ([3.0, 2.5] + [2.0] * 10 + [1.0] * 5, 30, 40, 11),
    "beyond the rank": ([3.0, 1.0], 50, 40, 5),
    "zero": ([0.0], 20, 30, 4),
    "one row": ([2.0], 1, 50, 1),
    "all of a small one": ([5.0, 4.0, 4.0, 1.0, 0.1, 0.0], 6, 9, 6),
    "slow": ([1 / (1 + i) ** 0.5 for i in range(400)], 500, 400, 10),
}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rows", [None, 40], ids=["", "restarted"])
@pytest.mark.parametrize("name", CASES)
def test_against_dense(name, rows, transposed, monkeypatch):
    spectrum, N, n, k = CASES[name]
    if rows:
        monkeypatch.setattr(lanczos, "_ROWS", rows)
    dense = matrix(spectrum, N, n)
    dense = dense.T.contiguous() if transposed else dense
    found = ls.svd(ls.MatrixOperator(dense), k, tol=1e-8, progress=False)
    want = torch.linalg.svdvals(dense)[:k]
    error, rounding = (found.S - want).abs(), torch.finfo(torch.float64).eps * max(spectrum)
    assert found.converged
    assert (error <= found.errors).all()
    assert (found.errors <= 100 * error.clamp(min=rounding)).all()
    assert (error <= 1e-9 * max(spectrum)).all()
    eye = torch.eye(k, dtype=torch.float64)
    torch.testing.assert_close(found.U @ found.U.T, eye, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.V @ found.V.T, eye, rtol=0, atol=1e-12)
    left, right = (
        x - found.S[:, None] * y
        for x, y in ((found.V @ dense.T, found.U), (found.U @ dense, found.V))
    )
    assert (torch.cat([left, right], 1).norm(dim=1) <= 1e-3 * max(spectrum)).all()


@pytest.mark.parametrize("block", [1, 2, 16])
def test_any_block(block):
    dense = matrix([0.95**i for i in range(100)], 120, 100)
    found = ls.svd(ls.MatrixOperator(dense), 6, tol=1e-8, block=block, progress=False)
    torch.testing.assert_close(found.S, torch.linalg.svdvals(dense)[:6], rtol=1e-9, atol=0)


def test_a_float32_network():
    network = ls.zoo.load("pixelshuffle4_x3")
    x0 = network.preprocess(ls.zoo.photo("cat").image.resize((16, 16)))
    op = ls.LinearInterpreter(network.model, x0)
    found = ls.svd(op, k=8, progress=False)
    want = torch.linalg.svdvals(op.todense().double())[:8]
    assert found.converged and found.S.dtype == torch.float32
    torch.testing.assert_close(found.S.double(), want, rtol=2e-6, atol=0)
    assert ((found.S.double() - want).abs() <= found.errors).all()


def test_fewer_passes_than_the_power_method_and_far_fewer_in_sequence():
    dense = matrix([1 - 0.01 * i for i in range(20)] + [0.5] * 60, 200, 150)
    steps: dict[str, list] = {"lanczos": [], "paper": []}
    passes = {
        name: ls.svd(
            ls.MatrixOperator(dense), 8, name, tol=tol, progress=False, callback=steps[name].append
        ).passes
        for name, tol in (("lanczos", 1e-8), ("paper", 1e-3))
    }
    assert passes["lanczos"] < passes["paper"] / 2
    assert len(steps["lanczos"]) < len(steps["paper"]) / 10
    assert [s.passes for s in steps["lanczos"]] == sorted(s.passes for s in steps["lanczos"])


def test_out_of_passes_says_so_and_its_bars_hold():
    dense = matrix([1 - 1e-3 * i for i in range(150)], 200, 150)
    found = ls.svd(ls.MatrixOperator(dense), 4, tol=1e-10, max_passes=80, progress=False)
    all_values = torch.linalg.svdvals(dense)
    assert not found.converged and found.passes <= 80
    distance = (found.S[:, None] - all_values).abs().amin(1)
    assert (distance <= found.errors).all()


def test_the_same_every_time():
    dense = matrix(CASES["slow"][0], 500, 400)
    one, two = (ls.svd(ls.MatrixOperator(dense), 3, progress=False) for _ in range(2))
    assert torch.equal(one.V, two.V) and torch.equal(one.S, two.S)


@pytest.mark.parametrize("options", [{"block": 0}, {"block": 4, "method": "paper"}])
def test_a_block_without_use_is_refused(options):
    with pytest.raises(ValueError, match='block >= 1 and for "lanczos" only'):
        ls.svd(ls.MatrixOperator(torch.eye(9)), 2, **options)
