"""Every operator against its dense matrix, in every format it takes."""

import math

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import aslinearoperator, svds
from torch.nn import functional

from linscope_cuda.linalg.matrix import MatrixOperator
from linscope_cuda.linalg.operator import MatrixFreeOperator


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Convolution(MatrixFreeOperator):
    """What an author writes: two products. Keeps the batch sizes it was called with."""

    def __init__(self, weight, extent=5):
        super().__init__((2, extent, extent), (3, extent, extent), weight.dtype, weight.device)
        self.weight, self.batches = weight, []

    def _matmat(self, x):
        self.batches.append(len(x))
        return functional.conv2d(x, self.weight, padding=1)

    def _rmatmat(self, u):
        self.batches.append(len(u))
        return functional.conv_transpose2d(u, self.weight, padding=1)


def convolution():
    return Convolution(randn(3, 2, 3, 3, seed=5))


def dense_convolution():
    def flat(x):
        return functional.conv2d(x.reshape(1, 2, 5, 5), randn(3, 2, 3, 3, seed=5), padding=1)

    return torch.func.jacrev(flat)(randn(50)).reshape(75, 50)


A, B, C = randn(12, 24, seed=1), randn(12, 24, seed=2), randn(24, 10, seed=3)
IMAGE = {"input_shape": (2, 3, 4), "output_shape": (3, 4)}

CASES = {
    "flat": lambda: (MatrixOperator(A), A),
    "image to image": lambda: (MatrixOperator(A, **IMAGE), A),
    "flat to image": lambda: (MatrixOperator(A, output_shape=(3, 2, 2)), A),
    "image to flat": lambda: (MatrixOperator(A, input_shape=(2, 3, 4)), A),
    "image to scalar": lambda: (MatrixOperator(A[:1], (2, 3, 4), ()), A[:1]),
    "column image": lambda: (MatrixOperator(A, (24, 1), (12, 1)), A),
    "tall": lambda: (MatrixOperator(A.T, (3, 4), (2, 3, 4)), A.T),
    "matrix-free": lambda: (convolution(), dense_convolution()),
    "transposed": lambda: (MatrixOperator(A, **IMAGE).T, A.T),
    "scaled": lambda: (2 * MatrixOperator(A, **IMAGE), 2 * A),
    "negative": lambda: (-MatrixOperator(A, **IMAGE), -A),
    "difference": lambda: (2 * MatrixOperator(A) - MatrixOperator(B), 2 * A - B),
    "sum": lambda: (MatrixOperator(A) + MatrixOperator(B) * np.float64(0.5), A + 0.5 * B),
    "composition": lambda: (
        MatrixOperator(A, **IMAGE) @ MatrixOperator(C, (2, 5), (2, 3, 4)),
        A @ C,
    ),
    "normal": lambda: (
        convolution().T @ convolution(),
        dense_convolution().T @ dense_convolution(),
    ),
    "transposed sum of products": lambda: (
        (MatrixOperator(A) @ MatrixOperator(C) - MatrixOperator(B) @ MatrixOperator(C)).T,
        ((A - B) @ C).T,
    ),
}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return CASES[request.param]()


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_shapes(case):
    op, dense = case
    assert op.shape == dense.shape
    assert op.shape == (math.prod(op.output_shape), math.prod(op.input_shape))
    assert (op.dtype, op.device) == (torch.float64, torch.device("cpu"))
    assert op.T.input_shape == op.output_shape and op.T.output_shape == op.input_shape


@pytest.mark.parametrize("count", [0, 1, 3])
def test_filter_and_transpose(case, count):
    op, dense = case
    N, n = op.shape
    x, u = randn(count, n), randn(count, N)
    close(op.filter(x.reshape(-1, *op.input_shape)), (x @ dense.T).reshape(-1, *op.output_shape))
    close(op.transpose(u.reshape(-1, *op.output_shape)), (u @ dense).reshape(-1, *op.input_shape))


def test_matmul_flat_vector_and_matrix(case):
    op, dense = case
    for this, matrix in ((op, dense), (op.T, dense.T), (op.H, dense.T), (op.T.T, dense)):
        n = matrix.shape[1]
        close(this @ randn(n, 4), matrix @ randn(n, 4))
        if this.input_shape != (n, 1):
            close(this @ randn(n, 1), matrix @ randn(n, 1))
        close(this @ randn(n), matrix @ randn(n))


def test_matmul_shaped(case):
    op, dense = case
    for this, matrix in ((op, dense), (op.T, dense.T)):
        x = randn(2, matrix.shape[1])
        expected = (x @ matrix.T).reshape(-1, *this.output_shape)
        x = x.reshape(-1, *this.input_shape)
        if len(this.input_shape) != 1:
            close(this @ x, expected)
            close(this @ x[0], expected[0])


def test_rows_columns_and_dense(case):
    op, dense = case
    N, n = op.shape
    close(op.todense(), dense)
    close(op.columns([n - 1, 0]).reshape(2, N), dense[:, [n - 1, 0]].T)
    close(op.rows([N - 1, 0]).reshape(2, n), dense[[N - 1, 0]])
    assert op.columns([]).shape == (0, *op.output_shape)
    assert op.rows([]).shape == (0, *op.input_shape)


def test_adjoint(case):
    op, _ = case
    assert op.dottest() < 1e-14
    assert op.T.dottest() < 1e-14


def test_scipy(case):
    op, dense = case
    outside, reference = op.to_scipy(), aslinearoperator(dense.numpy())
    assert outside.shape == reference.shape and outside.dtype == np.float64
    N, n = op.shape
    for shape in [(n,), (n, 1), (n, 3)]:
        x = randn(*shape).numpy()
        actual, expected = np.asarray(outside @ x), np.asarray(reference @ x)
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)
    for shape in [(N,), (N, 1), (N, 3)]:
        u = randn(*shape).numpy()
        actual, expected = np.asarray(outside.H @ u), np.asarray(reference.H @ u)
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)
    close(torch.from_numpy(outside.rmatvec(np.ones(N))), dense.sum(0))


def test_scipy_solves_with_it():
    op, dense = CASES["matrix-free"]()
    _, found, _ = svds(op.to_scipy(), k=3, rng=np.random.default_rng(0))
    close(torch.tensor(sorted(found, reverse=True)), torch.linalg.svdvals(dense)[:3])


@pytest.mark.parametrize(
    "dtype, outside",
    [
        (torch.float32, np.float32),
        (torch.float16, np.float32),
        (torch.bfloat16, np.float32),
    ],
)
def test_scipy_dtypes(dtype, outside):
    op = MatrixOperator(torch.eye(3, dtype=dtype)).to_scipy()
    assert op.dtype == outside
    result = op @ np.array([3, 2, 1])[::-1]
    assert result.dtype == outside
    np.testing.assert_array_equal(result, [1, 2, 3])


def test_scipy_refuses_complex_arrays():
    with pytest.raises(TypeError, match="real arrays, was given complex128"):
        MatrixOperator(A).to_scipy().matvec(np.ones(24, dtype=complex))


def test_indices_flat_or_tuples_or_arrays():
    op = MatrixOperator(A, **IMAGE)
    expected = A[:, [5, 23]].T.reshape(2, 3, 4)
    close(op.columns([(0, 1, 1), (1, 2, 3)]), expected)
    close(op.columns([5, [1, 2, 3]]), expected)
    close(op.columns(torch.tensor([5, 23])), expected)
    close(op.columns(np.array([[0, 1, 1], [1, 2, 3]])), expected)
    close(op.rows(range(4, 6)), A[4:6].reshape(2, 2, 3, 4))
    close(op.rows([(1, 0), (1, 0)]), A[[4, 4]].reshape(2, 2, 3, 4))


@pytest.mark.parametrize(
    "indices, error, message",
    [
        ([24], ValueError, r"columns: index 24 lies outside \(2, 3, 4\)"),
        ([0, -25], ValueError, r"columns: index -25 lies outside \(2, 3, 4\)"),
        ([(0, 3, 0)], ValueError, r"columns: index \(0, 3, 0\) lies outside \(2, 3, 4\)"),
        ([(0, 0)], ValueError, r"columns wants 3 numbers per tuple, was given \(0, 0\)"),
        ((0, 1, 1), TypeError, r"columns wants a list such as .*, was given \(0, 1, 1\)"),
        (3, TypeError, r"columns wants a list such as .*, was given 3"),
        ([0.5], TypeError, "float"),
    ],
)
def test_indices_refused(indices, error, message):
    op = MatrixOperator(A, **IMAGE)
    with pytest.raises(error, match=message):
        op.columns(indices)
    with pytest.raises(error, match=message.replace("columns", "rows")):
        op.T.rows(indices)
    assert op.passes == 0


@pytest.mark.parametrize(
    "max_batch, batches", [(None, [7]), (3, [3, 3, 1]), (7, [7]), (1, [1] * 7)]
)
def test_chunks(max_batch, batches):
    op, whole = convolution(), convolution()
    op.max_batch = max_batch
    x, u = randn(7, *op.input_shape), randn(7, *op.output_shape)
    close(op.filter(x), whole.filter(x))
    assert op.batches == batches
    close(op.transpose(u), whole.transpose(u))
    close(op.columns(range(7)), whole.columns(range(7)))
    close(op.rows(range(7)), whole.rows(range(7)))
    assert op.batches == 4 * batches


def test_chunks_of_the_dense_matrix_and_of_composites():
    op = convolution()
    op.max_batch = 20
    close(op.todense(), dense_convolution())
    assert op.batches == [20, 20, 10]
    normal = op.T @ op
    close(normal.todense(), dense_convolution().T @ dense_convolution())
    assert max(op.batches) == 20 and normal.max_batch == 20


def test_max_batch_may_be_overridden():
    class Narrow(Convolution):
        @property
        def max_batch(self):
            return 2

        @max_batch.setter
        def max_batch(self, value):
            pass

    op = Narrow(randn(3, 2, 3, 3))
    op.filter(randn(5, *op.input_shape))
    assert op.batches == [2, 2, 1]


def test_passes_count_samples():
    op, other = convolution(), convolution()
    op.filter(randn(3, *op.input_shape))
    op.T.filter(randn(1, *op.output_shape))
    assert op.passes == 4 == op.T.passes
    both = 2 * op - other
    both.filter(randn(5, *op.input_shape))
    assert (op.passes, other.passes, both.passes) == (9, 5, 14)
    normal = op.T @ op
    normal.transpose(randn(1, *op.input_shape))
    assert normal.passes == op.passes == 11


def test_todense_takes_the_smaller_side():
    op = convolution()
    assert op.todense().shape == (75, 50) and op.passes == 50
    assert op.T.todense().shape == (50, 75) and op.passes == 100


def test_todense_refuses_before_work():
    op = convolution()
    assert op.todense(max_bytes=75 * 50 * 8).shape == (75, 50)
    before = op.passes
    with pytest.raises(ValueError, match=r"75 x 50 .* takes 30,000 bytes, max_bytes allows 29,999"):
        op.todense(max_bytes=29_999)
    assert op.passes == before


def test_dottest_sees_a_wrong_adjoint():
    class Wrong(Convolution):
        def _rmatmat(self, u):
            return functional.conv_transpose2d(u, self.weight.flip(-1), padding=1)

    assert Wrong(randn(3, 2, 3, 3)).dottest() > 1e-3
    assert Wrong(randn(3, 2, 3, 3)).dottest(torch.Generator().manual_seed(3), trials=1) > 1e-3


def test_dottest_in_single_precision_of_zero_and_of_nan():
    assert MatrixOperator(A.float()).dottest() < 1e-6
    assert MatrixOperator(torch.zeros(3, 4)).dottest() == 0
    assert math.isnan(MatrixOperator(torch.full((3, 4), math.nan)).dottest())
    with pytest.raises(ValueError, match="1 trial or more, was given 0"):
        MatrixOperator(A).dottest(trials=0)
    with pytest.raises(TypeError, match=r"generator wants a torch.Generator, was given int"):
        MatrixOperator(A).dottest(3)  # type: ignore


@pytest.mark.parametrize("name", ["filter", "transpose"])
def test_products_are_differentiable(name):
    weight = randn(3, 2, 3, 3).requires_grad_()

    def product(weight, x):
        op = Convolution(weight, extent=3)
        op.max_batch = 1
        return getattr(2 * op - op, name)(x)

    channels = {"filter": 2, "transpose": 3}[name]
    x = randn(2, channels, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(product, (weight, x))


def test_dense_rows_and_columns_are_differentiable():
    matrix = A.clone().requires_grad_()
    op = MatrixOperator(matrix)
    (
        op.todense().sum() + op.rows([1]).sum() + op.columns([2]).sum() + (op @ randn(24)).sum()
    ).backward()
    expected = torch.ones_like(A) + randn(24)
    expected[1] += 1
    expected[:, 2] += 1
    close(matrix.grad, expected)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda op: op.filter(randn(24)),
            ValueError,
            r"filter wants shape \(K, 2, 3, 4\), was given \(24,\)",
        ),
        (lambda op: op.filter(randn(2, 3, 4)), ValueError, r"was given \(2, 3, 4\)"),
        (lambda op: op.filter(randn(1, 2, 4, 3)), ValueError, r"was given \(1, 2, 4, 3\)"),
        (
            lambda op: op.transpose(randn(1, 2, 3, 4)),
            ValueError,
            r"transpose wants shape \(K, 3, 4\)",
        ),
        (
            lambda op: op.filter(randn(1, 2, 3, 4).float()),
            TypeError,
            "filter wants torch.float64, was given torch.float32",
        ),
        (lambda op: op.filter([1.0]), TypeError, "filter wants a torch.Tensor, was given list"),
        (
            lambda op: op.filter(torch.empty(1, 2, 3, 4, dtype=torch.float64, device="meta")),
            ValueError,
            "on cpu, was given one on meta",
        ),
        (
            lambda op: op @ randn(23),
            ValueError,
            r"@ wants shape \(24,\), \(24, K\), \(2, 3, 4\) or \(K, 2, 3, 4\), was given \(23,\)",
        ),
        (lambda op: op @ randn(4, 24), ValueError, r"was given \(4, 24\)"),
        (lambda op: op @ randn(24, 1, 1), ValueError, r"was given \(24, 1, 1\)"),
        (
            lambda op: op @ randn(24).float(),
            TypeError,
            "@ wants torch.float64, was given torch.float32",
        ),
        (lambda op: op @ np.ones(24), TypeError, "@ wants a torch.Tensor, was given ndarray"),
        (lambda op: op @ 3, TypeError, "@ wants a torch.Tensor, was given int"),
        (
            lambda op: MatrixOperator(A) @ randn(2, 24),
            ValueError,
            r"@ wants shape \(24,\), \(24, K\), was given \(2, 24\)",
        ),
        (
            lambda op: MatrixOperator(A[:1], (24,), ()).transpose(randn(1, 1)),
            ValueError,
            r"shape \(K,\), was",
        ),
        (lambda op: op @ op, ValueError, r"output_shape to be \(2, 3, 4\), was given \(3, 4\)"),
        (
            lambda op: op + MatrixOperator(A),
            ValueError,
            r"operators of one shape, were given MatrixOperator\(\(2, 3, 4\)",
        ),
        (lambda op: np.ones(2) * op, TypeError, r"\* wants a real number, was given ndarray"),
        (lambda op: op - 1, TypeError, "want an operator, were given int"),
        (lambda op: op * 1j, TypeError, r"\* wants a real number, was given complex"),
        (lambda op: op * op, TypeError, r"\* wants a real number, was given MatrixOperator"),
        (
            lambda op: MatrixOperator(A) - MatrixOperator(B.float()),
            TypeError,
            "one dtype wanted: torch.float64 and torch.float32",
        ),
        (
            lambda op: MatrixOperator(A) - MatrixOperator(B.to("meta")),
            ValueError,
            "one device wanted: cpu, meta",
        ),
        (
            lambda op: MatrixOperator(A.long()),
            TypeError,
            "real floating dtype, was given torch.int64",
        ),
        (lambda op: MatrixOperator(A[0]), ValueError, r"shape \(N, n\), was given \(24,\)"),
        (lambda op: MatrixOperator(A.tolist()), TypeError, "torch.Tensor, was given list"),  # type: ignore
        (
            lambda op: MatrixOperator(A, (5, 5)),
            ValueError,
            r"shape \(12, 24\) does not map \(5, 5\) to \(12,\)",
        ),
        (lambda op: MatrixOperator(A[:0]), ValueError, "extents of 1 or more"),
        (
            lambda op: setattr(op, "max_batch", 0),
            ValueError,
            "max_batch wants 1 or more, or None, was given 0",
        ),
    ],
)
def test_errors_before_any_work(call, error, message):
    op = MatrixOperator(A, **IMAGE)
    with pytest.raises(error, match=message):
        call(op)
    assert op.passes == 0


def test_an_author_s_wrong_shape_is_named():
    class Flattening(Convolution):
        def _matmat(self, x):
            return super()._matmat(x).flatten(1)

    op = Flattening(randn(3, 2, 3, 3))
    with pytest.raises(
        RuntimeError, match=r"Flattening: filter of 2 .* \(2, 75\), \(K, 3, 5, 5\) was due"
    ):
        op.filter(randn(2, 2, 5, 5))


def test_scalars_of_torch_and_numpy():
    op = MatrixOperator(A)
    close((torch.tensor(3.0) * op).todense(), 3 * A)
    close((np.float32(3) * op).todense(), 3 * A)
    close((op * 3).todense(), 3 * A)


def test_repr_and_identity_of_double_transpose():
    op = MatrixOperator(A, **IMAGE)
    assert repr(op) == "MatrixOperator((2, 3, 4) -> (3, 4), 12 x 24, float64, cpu)"
    assert op.T.T is op


class SomeDevice(MatrixFreeOperator):
    """The identity, on a device that may come without its index."""

    def __init__(self, device):
        super().__init__((3,), (3,), torch.float64, device)

    def _matmat(self, x):
        return x

    def _rmatmat(self, u):
        return u


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda():
    op = MatrixOperator(A.cuda(), **IMAGE)
    close(op.todense().cpu(), A)
    assert op.dottest() < 1e-14
    assert SomeDevice("cuda").filter(randn(1, 3).cuda()).is_cuda
    np.testing.assert_allclose(op.to_scipy().matvec(np.ones(24)), A.sum(1).numpy(), rtol=1e-12)
    with pytest.raises(ValueError, match="on cuda:0, was given one on cpu"):
        op.__matmul__(randn(24))


def test_a_batch_of_one_vector_is_told_from_a_matrix():
    generator = torch.Generator().manual_seed(5)
    dense = torch.randn(5, 12, dtype=torch.float64, generator=generator)
    op = MatrixOperator(dense, (3, 4), (5,))
    u = torch.randn(1, 5, dtype=torch.float64, generator=generator)
    close(op.T @ u, (u @ dense).reshape(1, 3, 4))
    close(op.T @ u[0], u[0] @ dense)
    with pytest.raises(ValueError, match=r"@ wants shape \(5,\), \(5, K\)"):
        op.T @ u.expand(2, 5)  # pyright: ignore[reportUnusedExpression]


def test_negative_indices_count_from_the_end():
    dense = torch.randn(24, 10, generator=torch.Generator().manual_seed(6))
    op = MatrixOperator(dense, (10,), (2, 3, 4))
    close(op.rows([-1, (-1, -3, 1), (0, 2, -4)]), dense[[23, 13, 8]])
    close(op.columns([-10, 3]).reshape(2, -1), dense.T[[0, 3]])


def test_numpy_is_told_what_to_do():
    op = MatrixOperator(torch.eye(4))
    for make in (np.asarray, np.array):
        with pytest.raises(TypeError, match=r"4 x 4 matrix: todense\(\) makes .* to_scipy\(\)"):
            make(op)
    assert (np.float64(2) * op).todense().trace() == 8
