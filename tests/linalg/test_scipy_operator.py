"""scipy's operators as ours: the same products, and the same singular values."""

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import linscope_cuda as ls


def dense(N=12, n=9):
    return np.random.default_rng(0).standard_normal((N, n))


FORMS = {
    "array": lambda a: a,
    "sparse": scipy.sparse.csr_array,
    "operator": aslinearoperator,
    "functions": lambda a: LinearOperator(
        a.shape, matvec=lambda x: a @ x, rmatvec=lambda u: a.T @ u, dtype=a.dtype
    ),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("form", FORMS)
def test_the_same_matrix(form, dtype):
    a = dense().astype(dtype)
    op = ls.from_scipy(FORMS[form](a), input_shape=(3, 3), output_shape=(2, 2, 3))
    assert op.dtype == getattr(torch, dtype) and op.passes == 0
    torch.testing.assert_close(op.todense(), torch.tensor(a), rtol=0, atol=0)
    assert op.transpose(torch.ones(2, 2, 2, 3, dtype=op.dtype)).shape == (2, 3, 3)
    assert op.dottest() < 10 * torch.finfo(op.dtype).eps


def test_all_singular_values():
    a = dense(9, 30)
    found = ls.svd(ls.from_scipy(aslinearoperator(a)), k=9, progress=False)
    want = torch.tensor(np.linalg.svd(a)[1])
    assert found.converged and ((found.S - want).abs() <= found.errors).all()
    torch.testing.assert_close((found.U.T * found.S) @ found.V, torch.tensor(a), rtol=0, atol=1e-12)


def test_there_and_back():
    op = ls.MatrixOperator(torch.tensor(dense()))
    torch.testing.assert_close(ls.from_scipy(op.to_scipy()).todense(), op.matrix, rtol=0, atol=0)


def test_whole_numbers_become_float64():
    assert ls.from_scipy(np.eye(3, dtype=int)).dtype == torch.float64


def test_an_operator_that_hands_out_its_own_memory():
    memory = np.empty((4, 1))

    def product(x):
        memory[:] = 2 * x.reshape(4, 1)
        return memory

    op = ls.from_scipy(LinearOperator((4, 4), matvec=product, matmat=product, dtype=float))
    one, two = op.filter(torch.ones(1, 4).double()), op.filter(torch.zeros(1, 4).double())
    assert one.tolist() == [[2.0] * 4] and two.tolist() == [[0.0] * 4]


@pytest.mark.parametrize(
    "linear, shapes, kind, message",
    [
        ("no matrix", {}, TypeError, "from_scipy wants a scipy LinearOperator, .* was given str"),
        (np.eye(3) * 1j, {}, TypeError, "real float64 or float32, was given complex128"),
        (np.eye(6), {"input_shape": (2, 2)}, ValueError, r"\(6, 6\) does not map \(2, 2\) to"),
    ],
)
def test_refused(linear, shapes, kind, message):
    with pytest.raises(kind, match=message):
        ls.from_scipy(linear, **shapes)


def test_a_transpose_that_is_missing():
    op = ls.from_scipy(LinearOperator((3, 3), matvec=lambda x: x, dtype=float))
    op.filter(torch.ones(1, 3).double())
    with pytest.raises(TypeError, match="transpose wants a LinearOperator with rmatvec"):
        op.transpose(torch.ones(1, 3).double())
