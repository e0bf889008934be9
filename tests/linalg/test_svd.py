"""Singular triplets against torch.linalg.svd, and Algorithm 1's printed errors reproduced."""

import math
from collections import Counter

import pytest
import torch

from linscope_cuda.linalg.matrix import MatrixOperator
from linscope_cuda.linalg.operator import MatrixFreeOperator
from linscope_cuda.linalg.svd import METHODS, svd


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix(sigmas, N=60, n=50):
    """An (N, n) matrix with these singular values, and zeros for the rest."""
    left, _ = torch.linalg.qr(randn(N, len(sigmas), seed=1))
    right, _ = torch.linalg.qr(randn(n, len(sigmas), seed=2))
    return left * torch.tensor(sigmas, dtype=torch.float64) @ right.T


def ramp(start, stop, count):
    return torch.linspace(start, stop, count).tolist()


def solve(dense, k, **options):
    return svd(MatrixOperator(dense), k, **{"method": "paper", "progress": False, **options})


def flat(found):
    return found.U.flatten(1).double(), found.V.flatten(1).double()


def residuals(dense, found):
    """The distance bound from its definition, with the dense matrix in float64."""
    dense, S, (U, V) = dense.double(), found.S.double()[:, None], flat(found)
    left, right = V @ dense.T - S * U, U @ dense - S * V
    return torch.cat([left, right], 1).norm(dim=1) / math.sqrt(2)


def assert_orthonormal(x, tolerance):
    assert (x @ x.T - torch.eye(len(x), dtype=x.dtype)).abs().max() <= tolerance


SPECTRA = {
    "steps": [5.0, 4.0, 3.0, 2.0, 1.0, 0.5],
    "ramp": ramp(5, 0.1, 40),
    "geometric": [2 * 0.5**i for i in range(40)],
    "wide": [10.0**-i for i in range(16)],
    "cluster": [3.134, 3.132, 3.078, 3.07, 3.0, *ramp(2.9, 0.01, 40)],
    "equal pair": [5.0, 5.0, 4.0, 4.0, 4.0, 1.0],
    "all equal": [2.0] * 50,
    "rank 2": [3.0, 2.0],
    "rank 1": [2.0],
    "zero": [0.0],
    "large": [3e8, 2e8, 1e8],
    "small": [3e-8, 2e-8, 1e-8],
}
PRECISION = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-5, torch.bfloat16: 1e-5}


@pytest.mark.parametrize("transposed", [False, True], ids=["tall", "wide"])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_triplets_against_dense(spectrum, transposed):
    dense = matrix(SPECTRA[spectrum])
    dense = dense.T if transposed else dense
    true = torch.linalg.svdvals(dense)[:6]
    found = solve(dense, 6)
    assert found.converged
    # sigma is far better than tol, except where sigma itself is at tol.
    assert (found.S - true).abs().max() <= (1e-5 if spectrum == "wide" else 1e-8) * true[0]
    assert ((found.S - true).abs() <= found.errors).all()
    U, V = flat(found)
    assert_orthonormal(U, 1e-13)
    assert_orthonormal(V, 1e-13)
    assert (found.S[:-1] >= found.S[1:]).all() and (found.S >= 0).all()
    assert (residuals(dense, found) <= 1e-5 * true[0]).all()


@pytest.mark.parametrize("dtype", PRECISION, ids=str)
@pytest.mark.parametrize("spectrum", ["steps", "cluster", "rank 2", "zero", "wide"])
def test_bounds_hold_and_are_no_looser_than_the_residual(spectrum, dtype):
    dense = matrix(SPECTRA[spectrum]).to(dtype)
    true = torch.linalg.svdvals(dense.double())[:5]
    found = solve(dense, 5)
    errors, rounding = found.errors.double(), torch.finfo(dtype).eps * true[0]
    assert ((found.S.double() - true).abs() <= errors).all()
    assert (errors <= 2 * residuals(dense, found) + 10 * rounding).all()
    assert (errors <= 100 * (1e-5 * true[0] + rounding)).all()
    assert found.U.dtype == found.S.dtype == found.V.dtype == errors.to(found.S.dtype).dtype
    assert found.S.dtype == (dtype if dtype in (torch.float64, torch.float32) else torch.float32)
    for x in flat(found):
        assert_orthonormal(x, PRECISION[dtype])


def test_bounds_hold_where_the_iteration_was_cut_short():
    dense = matrix(SPECTRA["ramp"])
    true = torch.linalg.svdvals(dense)
    for max_passes in (16, 20, 40, 100):
        found = solve(dense, 4, max_passes=max_passes)
        assert not found.converged and found.passes <= max_passes
        # Some singular value lies within the bound: which one, the bound does not say.
        distance = (found.S[:, None] - true).abs().min(1).values
        assert (distance <= found.errors).all()
        assert (found.errors <= 2 * residuals(dense, found) + 1e-14 * true[0]).all()
        for x in flat(found):
            assert_orthonormal(x, 1e-12)


def test_bounds_reach_rounding_when_asked():
    dense = matrix(SPECTRA["cluster"])
    found = solve(dense, 4, tol=1e-13)
    assert found.converged
    assert (found.errors <= 2e-13 * found.S[0]).all()
    assert (found.S - torch.linalg.svdvals(dense)[:4]).abs().max() <= 1e-14 * found.S[0]


def test_ends_where_rounding_forbids_tol():
    found = solve(matrix(SPECTRA["steps"]).float(), 2, tol=1e-12)
    assert not found.converged and found.passes < 1000
    assert (found.errors <= 1e-5 * found.S[0]).all()


def test_ends_where_the_operator_s_own_rounding_forbids_tol():
    class Noisy(MatrixOperator):
        """Products good to 5e-5 only, as those of a deep network in float32."""

        generator = torch.Generator().manual_seed(0)

        def _matmat(self, x):
            y = super()._matmat(x)
            return y * (1 + 5e-5 * torch.randn(y.shape, generator=self.generator))

    found = svd(Noisy(matrix(SPECTRA["steps"]).float()), 2, "paper", tol=1e-6, progress=False)
    assert not found.converged and found.passes < 4000
    assert (found.S - torch.tensor([5.0, 4.0])).abs().max() < 1e-3


def test_vectors_of_separated_values_and_sign():
    dense = matrix(SPECTRA["steps"])
    U, _, Vh = torch.linalg.svd(dense, full_matrices=False)
    found = solve(dense, 5, tol=1e-10)
    largest = Vh[:5].gather(1, Vh[:5].abs().argmax(1, keepdim=True))
    torch.testing.assert_close(found.V, Vh[:5] * largest.sign(), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.U, U[:, :5].T * largest.sign(), rtol=0, atol=1e-9)
    assert (found.V.gather(1, found.V.abs().argmax(1, keepdim=True)) > 0).all()


def test_subspaces_of_equal_values():
    dense = matrix(SPECTRA["equal pair"])
    U, _, Vh = torch.linalg.svd(dense, full_matrices=False)
    found = solve(dense, 5, tol=1e-10)
    for group in (slice(0, 2), slice(2, 5)):
        for ours, theirs in ((found.V[group], Vh[group]), (found.U[group], U.T[group])):
            torch.testing.assert_close(ours.T @ ours, theirs.T @ theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (1, 1), (2, 2), (3, 9), (9, 3)])
def test_all_triplets_of_small_matrices(shape):
    for dense in (randn(*shape), torch.ones(shape).double(), torch.zeros(shape).double()):
        k = min(shape)
        found = solve(dense, k)
        true = torch.linalg.svdvals(dense)
        assert ((found.S - true).abs() <= found.errors).all()
        U, V = flat(found)
        assert_orthonormal(U, 1e-13)
        assert_orthonormal(V, 1e-13)
        assert (U.T * found.S @ V - dense).abs().max() <= 1e-5


def test_shapes_of_images():
    dense = matrix(SPECTRA["steps"])
    op = MatrixOperator(dense, input_shape=(2, 5, 5), output_shape=(3, 4, 5))
    found = svd(op, 3, "paper", progress=False)
    assert found.U.shape == (3, 3, 4, 5) and found.V.shape == (3, 2, 5, 5)
    assert found.S.shape == found.errors.shape == (3,)
    torch.testing.assert_close(
        op.filter(found.V), found.S[:, None, None, None] * found.U, rtol=0, atol=1e-4
    )


def test_composites():
    dense, other = matrix(SPECTRA["steps"]), randn(60, 50, seed=4)
    op = 2 * MatrixOperator(dense) - MatrixOperator(other)
    found = svd(op.T @ op, 3, "paper", tol=1e-8, progress=False)
    expected = torch.linalg.svdvals(2 * dense - other)[:3] ** 2
    torch.testing.assert_close(found.S, expected, rtol=1e-8, atol=0)
    assert found.passes == op.passes


def iterations(sigmas, k=1, **options):
    seen = Counter()
    dense = matrix(sigmas)
    found = solve(dense, k, callback=lambda step: seen.update([step.triplet]), **options)
    assert found.converged
    assert (found.S - torch.linalg.svdvals(dense)[:k]).abs().max() <= 1e-8 * found.S[0]
    return [seen[i + 1] for i in range(k)]


def test_momentum_needs_fewer_iterations_at_equal_error():
    sigmas = [10.0, *ramp(9.9, 1, 40)]
    (adaptive,), (plain,) = iterations(sigmas), iterations(sigmas, momentum=0)
    (best,) = iterations(sigmas, momentum=9.9**4 / 4)
    assert 3 * adaptive < plain and 3 * best < plain
    assert adaptive < 1.2 * best


def test_momentum_helps_after_deflation_too():
    sigmas = [20.0, 10.0, *ramp(9.95, 1, 40)]
    adaptive, plain = iterations(sigmas, k=2), iterations(sigmas, k=2, momentum=0)
    assert 3 * adaptive[1] < plain[1]
    # A fixed m is scaled with sigma^4: unscaled, 19^4 / 4 is beyond 10^4 / 4 and never converges.
    assert iterations(sigmas, k=2, momentum=19.0**4 / 4, max_passes=4000)[1] < plain[1]


def test_callback_and_passes():
    op, steps = MatrixOperator(matrix(SPECTRA["steps"])), []
    op.filter(torch.zeros(5, 50, dtype=torch.float64))
    found = svd(op, 2, "paper", progress=False, callback=steps.append)
    assert found.passes == op.passes - 5 == 2 * len(steps) + 4
    assert [step.passes for step in steps] == [2 * (i + 1) for i in range(len(steps))]
    first = [step for step in steps if step.triplet == 1]
    assert [step.iteration for step in first] == list(range(1, len(first) + 1))
    assert first[-1].error <= 0.5e-5 < first[-2].error
    assert first[-1].sigma == pytest.approx(5, rel=1e-6)
    assert steps[-1].triplet == 2


def test_generators():
    dense = matrix(SPECTRA["cluster"])
    default, again = solve(dense, 2), solve(dense, 2)
    assert torch.equal(default.V, again.V)
    state = torch.get_rng_state()
    seeded = [solve(dense, 2, generator=torch.Generator().manual_seed(i)) for i in (7, 7, 8)]
    assert torch.equal(seeded[0].V, seeded[1].V)
    assert not torch.equal(seeded[0].V, seeded[2].V)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_gradient_is_recorded():
    weight = matrix(SPECTRA["steps"]).requires_grad_()
    assert not solve(weight, 1).S.requires_grad


def test_progress_bar(capsys):
    dense = matrix(SPECTRA["steps"])
    solve(dense, 2, progress=False)
    solve(dense, 2, progress=None)  # nobody looks on
    assert capsys.readouterr().err == ""
    found = solve(dense, 2, progress=True)
    shown = capsys.readouterr().err
    assert "1/2 triplets, sigma_2 4, error" in shown and f"{found.passes - 4} passes" in shown


def test_float16_probes_have_the_scale_of_an_image():
    class Faint(MatrixFreeOperator):
        """The identity, but what a unit vector of 65536 entries leaves inside is subnormal."""

        def _matmat(self, x):
            return x * 1e-5 * 1e5

        def _rmatmat(self, u):
            return self._matmat(u)

    found = svd(Faint((256, 256), (256, 256), torch.float16, "cpu"), 1, "paper", progress=False)
    assert found.S.item() == pytest.approx(1, abs=2e-3)
    assert found.errors.item() < 0.01


@pytest.mark.parametrize(
    "options, message",
    [
        ({"k": 0}, r"svd wants k in 1 \.\.\. 50 for MatrixOperator.*, was given 0"),
        ({"k": 51}, r"k in 1 \.\.\. 50 .* was given 51"),
        ({"tol": 0}, r"tol > 0, was given 0"),
        ({"tol": -1e-5}, r"tol > 0, was given -1e-05"),
        ({"tol": math.nan}, r"tol > 0, was given nan"),
        ({"method": "power"}, r"a method of lanczos, paper, paper-literal.*, was given 'power'"),
        ({"momentum": -1.0}, r"momentum >= 0 or None, was given -1"),
        ({"steps": 10}, r'steps >= 1 and for "paper-literal" only, was given 10'),
        ({"steps": 0, "method": "paper-literal"}, r"steps >= 1 .* was given 0"),
        ({"max_passes": 7}, r"paper wants max_passes >= 8 for k = 2, was given 7"),
        (
            {"max_passes": 43, "steps": 10, "method": "paper-literal"},
            r"paper-literal wants max_passes >= 44 for k = 2, was given 43",
        ),
    ],
)
def test_refused_before_any_work(options, message):
    op = MatrixOperator(matrix([1.0]))
    with pytest.raises(ValueError, match=message):
        svd(op, **{"k": 2, "method": "paper", **options})
    assert op.passes == 0


def test_refused_types_and_values():
    with pytest.raises(TypeError, match=r"svd wants a MatrixFreeOperator, was given Tensor"):
        svd(randn(3, 3), 1)  # type: ignore
    with pytest.raises(TypeError, match="integer"):
        solve(randn(3, 3), 1.5)
    with pytest.raises(TypeError, match=r"generator wants a torch\.Generator, was given int"):
        solve(randn(3, 3), 1, generator=0)
    with pytest.raises(ValueError, match="values that are not finite for a finite probe"):
        solve(torch.full((3, 3), math.inf), 1)


@pytest.mark.parametrize("method", METHODS)
def test_smallest_max_passes(method):
    options = {"steps": 3} if method == "paper-literal" else {}
    found = solve(matrix(SPECTRA["ramp"]), 3, method=method, max_passes=24, **options)
    assert found.passes <= 24 and not found.converged


# Algorithm 1 as printed


def literal(dense, k=1, momentum=None, steps=500):
    return solve(dense, k, method="paper-literal", momentum=momentum, steps=steps)


def test_literal_line_by_line():
    """Algorithm 1 transcribed for a dense matrix: three steps, m in use, and one deflation."""
    dense, m = randn(6, 5), 0.3
    found = literal(dense, k=2, momentum=m, steps=3)
    generator, deflated = torch.Generator().manual_seed(0), dense
    for i in range(2):
        v_prev = torch.zeros(5, dtype=torch.float64)
        v_curr = torch.randn(1, 5, generator=generator, dtype=torch.float64)[0]
        u, sigma2 = v_prev, v_prev.sum()
        for _ in range(3):
            u = deflated @ v_curr
            v_next = deflated.T @ u - m * v_prev
            sigma2 = v_curr @ v_next
            v_prev, v_curr = v_curr / v_next.norm(), v_next / v_next.norm()
        u = u / u.norm()
        deflated = deflated - sigma2.sqrt() * torch.outer(u, v_curr)
        sign = v_curr[v_curr.abs().argmax()].sign()
        torch.testing.assert_close(found.V[i], sign * v_curr)
        torch.testing.assert_close(found.U[i], sign * u)
        torch.testing.assert_close(found.S[i], sigma2.sqrt())


def test_literal_as_printed_has_no_momentum_and_finds_the_triplets():
    dense = matrix(SPECTRA["steps"])
    found = literal(dense, k=3)
    torch.testing.assert_close(found.S, torch.linalg.svdvals(dense)[:3])
    assert found.converged and found.passes == 3 * (2 * 500 + 2)
    assert torch.equal(found.S, literal(dense, k=3, momentum=0).S)


def test_literal_momentum_biases_sigma():
    s1, s2 = 10.0, 9.5
    m = s2**4 / 4
    dense = matrix([s1, s2, *ramp(9, 1, 20)])
    found = literal(dense, momentum=m)
    biased = math.sqrt((s1**2 + math.sqrt(s1**4 - 4 * m)) / 2)
    assert found.S.item() == pytest.approx(biased, rel=1e-6)
    assert biased == pytest.approx(8.458, abs=0.001)
    # The vectors are right, the error bar tells the bias, and "paper" has none.
    assert abs((found.V @ torch.linalg.svd(dense).Vh[0]).item()) == pytest.approx(1, rel=1e-6)
    assert not found.converged
    assert found.errors.item() == pytest.approx(s1 - biased, rel=1e-6)
    assert solve(dense, 1, momentum=m).S.item() == pytest.approx(s1, rel=1e-8)


def test_literal_deflation_leaves_a_spurious_singular_value():
    s1, m = 10.0, 9.5**4 / 4
    dense = matrix([s1, 3.0, 1.0])
    biased = math.sqrt((s1**2 + math.sqrt(s1**4 - 4 * m)) / 2)
    found = literal(dense, momentum=m)
    left = torch.linalg.svdvals(dense - found.S * found.U.T @ found.V)
    expected = torch.tensor([3.0, s1 - biased, 1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(left[:4], expected, rtol=1e-5, atol=1e-5)


def test_literal_never_converges_beyond_a_quarter_of_sigma_to_the_fourth():
    dense = matrix([10.0, 5.0, 1.0])
    below, above = (literal(dense, momentum=factor * 10.0**4 / 4) for factor in (0.9, 1.1))
    v = torch.linalg.svd(dense).Vh[0]
    assert abs((below.V @ v).item()) == pytest.approx(1, abs=1e-6)
    assert not above.converged
    changes = []
    solve(
        dense,
        1,
        method="paper-literal",
        momentum=1.1 * 10.0**4 / 4,
        steps=2000,
        callback=lambda step: changes.append(step.error),
    )
    assert min(changes[-100:]) > 1e-3


def test_literal_of_zero_says_nothing():
    found = literal(torch.zeros(3, 4).double(), k=2, steps=3)
    assert torch.equal(found.S, torch.zeros(2).double())
    assert found.errors.isinf().all() and not found.converged


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", PRECISION, ids=str)
def test_on_cuda(dtype):
    dense = matrix(SPECTRA["steps"]).to(dtype)
    here, there = solve(dense, 3), solve(dense.cuda(), 3)
    assert there.S.is_cuda and there.U.is_cuda
    assert ((here.S - there.S.cpu()).abs() <= here.errors + there.errors.cpu()).all()


def test_an_operator_without_a_matrix():
    class Blur(MatrixFreeOperator):
        """A circular convolution: its singular values are those of its spectrum."""

        def __init__(self):
            super().__init__((8, 8), (8, 8), torch.float64, "cpu", max_batch=1)
            self.spectrum = torch.fft.fft2(randn(8, 8))

        def _matmat(self, x):
            return torch.fft.ifft2(torch.fft.fft2(x) * self.spectrum).real

        def _rmatmat(self, u):
            return torch.fft.ifft2(torch.fft.fft2(u) * self.spectrum.conj()).real

    op = Blur()
    found = svd(op, 6, "paper", progress=False)
    true = op.spectrum.abs().flatten().sort(descending=True).values[:6]
    assert found.converged and ((found.S - true).abs() <= found.errors).all()
