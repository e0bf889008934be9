"""Error bars, angles and cluster flags against what is true."""

import math
import runpy
from pathlib import Path

import pytest
import torch

import linscope_cuda as ls
from linscope_cuda.linalg.svd import lanczos
from linscope_cuda.linalg.svd.bounds import angles, clusters, value_bounds

EPS = torch.finfo(torch.float64).eps


def orthonormal(rows, columns, generator):
    return torch.linalg.qr(
        torch.randn(rows, columns, generator=generator, dtype=torch.float64), mode="reduced"
    )[0]


def matrix(spectrum, N, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    left, right = (orthonormal(size, len(spectrum), generator) for size in (N, n))
    return left * torch.tensor(spectrum, dtype=torch.float64) @ right.T


# spectrum, N, n, k
KNOWN = {
    "flat": ([1 - 1e-3 * i for i in range(200)], 260, 200, 5),
    "clustered at 1e-4": (
        [2.0] + [1 - 1e-4 * i for i in range(6)] + [0.6 * 0.97**i for i in range(150)],
        200,
        160,
        7,
    ),
    "k inside a cluster": (
        [2.0] + [1 - 1e-4 * i for i in range(6)] + [0.6 * 0.97**i for i in range(150)],
        200,
        160,
        4,
    ),
    "rank-deficient": ([3.0, 2.0, 1.0], 60, 50, 6),
    "k = min": ([0.8**i for i in range(12)], 30, 12, 12),
    "k = min, singular": ([4.0, 2.0, 1.0, 0.0], 4, 4, 4),
    "one row": ([2.5], 1, 300, 1),
    "zero": ([0.0], 30, 20, 3),
    "equal": ([1.0] * 40, 60, 40, 12),
    "wide": ([10.0**-i for i in range(16)], 40, 30, 6),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tol", [1e-3, 1e-5, 1e-9])
@pytest.mark.parametrize("name", KNOWN)
def test_bars_hold_and_are_within_100_times_the_error(name, tol, seed):
    spectrum, N, n, k = KNOWN[name]
    dense = matrix(spectrum, N, n, seed)
    generator = torch.Generator().manual_seed(seed)
    found = ls.svd(ls.MatrixOperator(dense), k, tol=tol, generator=generator, progress=False)
    true = torch.tensor((spectrum + [0.0] * k)[:k], dtype=torch.float64)
    error = (found.S - true).abs()
    assert found.converged
    assert (error <= found.errors).all()
    # With a coarse tol the residuals bridge the gaps of a dense spectrum, and little is certain.
    if tol < 1e-4:
        assert (found.errors <= 100 * error.clamp(min=EPS * spectrum[0])).all()


def test_bars_hold_at_every_iteration_from_where_the_values_are_told_apart():
    """The bars of an iteration that was cut short: sure where a gap shows, never wrong there."""
    spectrum, N, n, k = KNOWN["flat"]
    dense = matrix(spectrum, N, n)
    true = torch.tensor(spectrum[:k], dtype=torch.float64)
    held = 0
    for passes in range(20, 400, 10):
        found = ls.svd(
            ls.MatrixOperator(dense), k, tol=1e-9, max_passes=passes, block=5, progress=False
        )
        residual = (found.V @ dense.T - found.S[:, None] * found.U).norm(dim=1) + (
            found.U @ dense - found.S[:, None] * found.V
        ).norm(dim=1)
        told = found.errors < 0.9 * residual  # by a gap, not by the residual alone
        held += int(told.sum())
        assert ((found.S - true).abs() <= found.errors)[told].all()
    assert held > 50


def test_the_bound_from_its_definition():
    """Against the largest true value over many matrices that share S, E and |X| <= beta."""
    generator = torch.Generator().manual_seed(0)
    S = torch.tensor([3.0, 2.99, 2.0, 1.9, 1.8], dtype=torch.float64)  # one gap, after two
    E = torch.tensor([[0.01], [0.02], [0.05], [0.3], [0.6]], dtype=torch.float64)
    bounds = value_bounds(S, E, k=2)
    beta, worst = S[2] + E[2].norm(), torch.zeros(2, dtype=torch.float64)
    for _ in range(300):
        X = torch.randn(3, 1, generator=generator, dtype=torch.float64)
        X = X * torch.rand(1, generator=generator, dtype=torch.float64) * 3 / X.norm()
        rest = torch.cat([torch.cat([S[2:].diag(), E[2:]], 1), torch.nn.functional.pad(X, (3, 0))])
        if torch.linalg.matrix_norm(rest, 2) > beta:
            continue
        F = torch.cat([torch.cat([S.diag(), E], 1), torch.nn.functional.pad(X, (5, 0))])
        worst = torch.maximum(worst, torch.linalg.svdvals(F)[:2] - S[:2])
    assert (worst <= bounds).all() and (bounds <= 3 * worst).all()
    assert (bounds < E[:2, 0] / 5).all()  # far below the residual


def test_without_a_gap_the_bound_is_the_residual():
    S = torch.tensor([2.0, 1.999, 1.998], dtype=torch.float64)
    E = torch.full((3, 1), 0.01, dtype=torch.float64)
    assert torch.equal(value_bounds(S, E, k=2), E[:2, 0])
    assert value_bounds(S[:0], E[:0], k=2).shape == (0,)
    assert torch.equal(value_bounds(S, E[:, :0], k=3), torch.zeros(3).double())


def test_clusters():
    S = torch.tensor([5.0, 4.0, 3.9999, 3.9998, 1.0, 0.0, 0.0])
    assert clusters(S, 1e-3) == [(0, 1), (1, 4), (4, 5), (5, 7)]
    assert clusters(S, 0.0) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 7)]
    assert clusters(S[:0], 1.0) == []


def test_angles_by_hand():
    S = torch.tensor([5.0, 4.0, 4.0, 1.0], dtype=torch.float64)
    e = torch.tensor([0.1, 0.3, 0.4, 2.0], dtype=torch.float64)
    turned, together = angles(S, e, 1e-9)
    assert turned.tolist() == pytest.approx(
        [math.asin(0.1 / 0.7), math.asin(0.5 / 0.9), math.asin(0.5 / 0.9), math.pi / 2]
    )
    assert together.tolist() == [False, True, True, False]


@pytest.mark.parametrize("tol", [1e-5, 1e-9])
def test_angles_are_those_to_the_true_vectors(tol):
    spectrum, N, n, k = KNOWN["clustered at 1e-4"]
    dense = matrix(spectrum, N, n)
    U, _, Vh = torch.linalg.svd(dense)
    found = ls.svd(ls.MatrixOperator(dense), k, tol=tol, progress=False)
    assert not found.clustered.any()
    for ours, theirs in ((found.U, U.T[:k]), (found.V, Vh[:k])):
        turned = (ours - (ours * theirs).sum(1, keepdim=True) * theirs).norm(dim=1).asin()
        assert (turned <= 2 * found.angles + 1e-12).all()
    assert (found.angles[0] < 0.01).all()


def test_vectors_as_good_as_asked_for():
    spectrum, N, n, k = KNOWN["flat"]
    dense = matrix(spectrum, N, n)
    plain, turned = (
        ls.svd(ls.MatrixOperator(dense), k, angle=angle, progress=False) for angle in (None, 1e-3)
    )
    assert (turned.angles <= 1e-3).all() and not (plain.angles <= 1e-3).all()
    Vh = torch.linalg.svd(dense).Vh[:k]
    assert ((turned.V * Vh).sum(1).abs() >= math.cos(2e-3)).all()
    assert turned.passes > plain.passes


def test_a_cluster_is_flagged_and_its_subspace_right():
    spectrum = [3.0, 2.0, 2.0 - 1e-7, 2.0 - 2e-7, *(0.9**i for i in range(60))]
    dense = matrix(spectrum, 90, 80)
    found = ls.svd(ls.MatrixOperator(dense), 5, tol=1e-5, angle=1e-4, progress=False)
    assert found.clustered.tolist() == [False, True, True, True, False]
    Vh = torch.linalg.svd(dense).Vh[1:4]
    sines = torch.linalg.svdvals(found.V[1:4] - found.V[1:4] @ Vh.T @ Vh)
    assert sines[0] <= 2e-4 and (found.angles[1:4] <= 1e-4).all()


def test_a_cluster_that_reaches_past_k_is_flagged():
    spectrum = [3.0, 2.0, 2.0 - 1e-8, *(0.9**i for i in range(60))]
    found = ls.svd(ls.MatrixOperator(matrix(spectrum, 90, 80)), 2, progress=False)
    assert found.clustered.tolist() == [False, True]


def test_float32_bars_hold_with_the_operator_s_own_rounding():
    class Noisy(ls.MatrixOperator):
        """Products good to 1e-4, as those of a deep network in low precision."""

        generator = torch.Generator().manual_seed(0)

        def _matmat(self, x):
            y = super()._matmat(x)
            return y * (1 + 1e-4 * torch.randn(y.shape, generator=self.generator))

    dense = matrix([5.0, 4.0, 3.0, 2.0, 1.0, 0.5], 60, 50)
    quiet, noisy = (
        ls.svd(kind(dense.float()), 3, progress=False) for kind in (ls.MatrixOperator, Noisy)
    )
    true = torch.tensor([5.0, 4.0, 3.0])
    assert quiet.converged and not noisy.converged
    for found in (quiet, noisy):
        assert ((found.S - true).abs() <= found.errors).all()
        assert (found.errors <= 100 * (found.S - true).abs().clamp(min=1e-7)).any()


def test_a_hidden_value_is_what_the_trial_is_for():
    """One start row shows one copy of each value: without the trial the bars would be wrong."""
    dense = matrix([2.0, 2.0, 1.0, 0.5], 30, 20)
    found = ls.svd(ls.MatrixOperator(dense), 2, block=1, progress=False)
    assert found.S.tolist() == pytest.approx([2.0, 2.0]) and found.converged


def test_less_memory_restarts_and_finds_the_same(monkeypatch):
    dense = matrix([1 / (1 + i) ** 0.5 for i in range(300)], 400, 300)
    free = ls.svd(ls.MatrixOperator(dense), 6, tol=1e-8, progress=False)
    monkeypatch.setattr(lanczos, "_BYTES", 16 * (400 + 300) * 30)
    steps = []
    tight = ls.svd(ls.MatrixOperator(dense), 6, tol=1e-8, progress=False, callback=steps.append)
    assert steps[-1].restarts > 0 and steps[0].restarts == 0
    assert ((free.S - tight.S).abs() <= free.errors + tight.errors).all()


class Counting(ls.MatrixOperator):
    """Counts its batches, and how many samples each has."""

    def __init__(self, matrix):
        super().__init__(matrix)
        self.batches = []

    def _matmat(self, x):
        self.batches.append(len(x))
        return super()._matmat(x)

    def _rmatmat(self, u):
        self.batches.append(len(u))
        return super()._rmatmat(u)


def test_close_values_keep_a_wide_block(monkeypatch):
    """One probe at a time takes ever more passes where the values after k are close."""
    op = ls.MatrixOperator(matrix([1.0, 0.98] + [0.97 - 2e-3 * i for i in range(200)], 300, 202))
    found = ls.svd(op, 2, tol=1e-6, progress=False)
    monkeypatch.setattr(lanczos, "_GAIN", math.inf)  # the first narrow block is the last
    whole = ls.svd(op, 2, tol=1e-6, progress=False)
    assert found.converged and whole.converged
    assert found.sequential <= 1.25 * whole.sequential


@pytest.mark.parametrize("most", [None, 2, 1])
def test_passes_are_samples_and_sequential_ones_batches(most):
    op = Counting(matrix([0.9**i for i in range(50)], 60, 50))
    op.max_batch = most
    found = ls.svd(op, 4, block=None if most == 2 else 4, progress=False)
    assert found.converged
    assert found.passes == sum(op.batches) == op.passes
    assert found.sequential == len(op.batches)
    assert max(op.batches) == (most or 4)


def test_only_what_is_not_done_goes_on_once_a_gap_shows():
    """The last of three values converges last, by one probe and not by four."""
    op = Counting(matrix([9.0, 8.0, 1.0, *(0.4 * 0.9**i for i in range(60))], 90, 80))
    found = ls.svd(op, 3, block=4, tol=1e-9, progress=False)
    assert found.converged and (found.S - torch.tensor([9.0, 8.0, 1.0])).abs().max() < 1e-8
    assert op.batches[0] == 4 and set(op.batches[-4:]) == {1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"which": "smallest"}, "which=\"largest\", was given 'smallest': products with F alone"),
        ({"angle": 0.0}, 'angle > 0 and for "lanczos" only, was given 0.0'),
        ({"angle": 0.1, "method": "paper"}, 'angle > 0 and for "lanczos" only, was given 0.1'),
    ],
)
def test_refused_before_any_work(options, words):
    op = ls.MatrixOperator(torch.eye(9))
    with pytest.raises(ValueError) as error:
        ls.svd(op, 2, **options)
    assert words in str(error.value) and op.passes == 0


def residuals(found, dense):
    """|(F v - sigma u, F^T u - sigma v)| / |(u, v)| by products of its own."""
    left = found.V @ dense.T - found.S[:, None] * found.U
    right = found.U @ dense - found.S[:, None] * found.V
    return torch.cat([left, right], 1).norm(dim=1) / math.sqrt(2)


@pytest.fixture(scope="module")
def measuring():
    """tools/error_bars.py, which counts wrong bars."""
    return runpy.run_path(str(Path(__file__).parents[2] / "tools" / "error_bars.py"))


# Here a near copy hides, and the bars are too small: seeds of `measuring`'s matrices.
WRONG = [("clusters of six", 23), ("clusters of six", 83)]


@pytest.mark.parametrize(("kind", "seed"), WRONG)
def test_a_bar_that_is_wrong_is_an_estimate(kind, seed, measuring):
    counted, _ = measuring["of_one"](kind, seed)
    assert counted.wrong_estimates > 0 and counted.wrong_bounds == counted.not_ith == 0


@pytest.mark.parametrize("kind", range(9))
def test_no_bound_is_wrong(kind, measuring):
    name = [*measuring["KINDS"]][kind]
    for seed in range(1000, 1004):
        counted, _ = measuring["of_one"](name, seed)
        assert counted.wrong_bounds == 0 and counted.bounds + counted.estimates == counted.triplets


def test_bars_of_a_well_separated_spectrum_are_estimates_far_below_the_residuals():
    dense = matrix([5.0, 4.0, 3.0, 2.0, *(0.5 * 0.9**i for i in range(40))], 60, 50)
    found = ls.svd(ls.MatrixOperator(dense), 3, progress=False)
    assert found.proven.tolist() == [False] * 3 and found.bars == "estimates"
    assert (found.errors < residuals(found, dense) / 100).all()
    assert ((found.S - torch.tensor([5.0, 4.0, 3.0])).abs() <= found.errors).all()


@pytest.mark.parametrize("method", ["paper", "paper-literal"])
def test_bars_that_are_residuals_are_bounds(method):
    dense = matrix([5.0, 4.0, 3.0, 2.0, *(0.5 * 0.9**i for i in range(40))], 60, 50)
    found = ls.svd(ls.MatrixOperator(dense), 3, method, progress=False)
    assert found.proven.tolist() == [True] * 3 and found.bars == "bounds"
    assert (found.errors >= residuals(found, dense)).all()


def test_bases_that_fill_the_space_prove_every_value():
    spectrum = [4.0, 2.0, 2.0, 2.0, 1.0, 0.0]
    found = ls.svd(ls.MatrixOperator(matrix(spectrum, 6, 30)), 6, progress=False)
    assert found.proven.all()
    assert ((found.S - torch.tensor(spectrum).double()).abs() <= found.errors).all()


def test_zeros_where_the_bases_end_are_estimates():
    """Nothing was found there; that nothing is there is likely, and not proven."""
    found = ls.svd(ls.MatrixOperator(matrix([3.0, 2.0, 1.0], 60, 50)), 5, progress=False)
    assert found.S[3:].tolist() == [0.0, 0.0]
    assert found.proven.tolist() == [True] * 3 + [False] * 2
    assert found.bars == "3 of 5 are bounds, the others estimates"


@pytest.mark.parametrize("name", KNOWN)
def test_bounds_hold_and_are_told_by_the_residual_after_any_number_of_passes(name):
    spectrum, N, n, k = KNOWN[name]
    dense = matrix(spectrum, N, n)
    values = torch.tensor([*spectrum, 0.0], dtype=torch.float64)
    for passes in range(4 * k, 4 * k + 60, 14):
        found = ls.svd(ls.MatrixOperator(dense), k, tol=1e-9, max_passes=passes, progress=False)
        nearest = (found.S[:, None] - values).abs().amin(1)
        assert (nearest <= found.errors)[found.proven].all()
        size, rounding = residuals(found, dense), 100 * EPS * spectrum[0]
        assert (found.errors >= size - rounding)[found.proven].all()
        zeros = found.S == 0  # beyond the bases, of which nothing was measured
        assert (found.errors <= size + rounding)[~found.proven & ~zeros].all()


def test_print_says_of_each_bar_what_it_is():
    found = ls.svd(ls.MatrixOperator(matrix([3.0, 2.0, 1.0], 60, 50)), 4, progress=False)
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["1", "2", "3", "4"]
    assert [line.split()[-1] for line in lines[:4]] == ["bound"] * 3 + ["estimate"]
    assert lines[4] == f"4 triplets, {found.passes} passes"
