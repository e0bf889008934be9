"""F in PyLops: its own dot test, its algebra and a solver."""

import numpy as np
import pylops
import pytest
import torch
from pylops.optimization.basic import lsqr
from pylops.utils import dottest
from torch import nn

import linscope_cuda as ls


@pytest.fixture
def op():
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, (2, 3), bias=False)
    )
    return ls.LinearInterpreter(model.double(), torch.randn(1, 2, 5, 6, dtype=torch.float64))


def test_products_and_shapes(op):
    F, dense = ls.to_pylops(op), op.todense().numpy()
    x, u = np.random.default_rng(0).normal(size=(2, 5, 6)), np.ones((3, 4, 4))
    assert isinstance(F, pylops.LinearOperator) and F.dims == (2, 5, 6) and F.dimsd == (3, 4, 4)
    assert np.allclose((F @ x).ravel(), dense @ x.ravel(), atol=1e-13)
    assert np.allclose((F.H @ u).ravel(), dense.T @ u.ravel(), atol=1e-13)
    assert dottest(F, rtol=1e-12, raiseerror=True)


def test_algebra_and_a_solver(op):
    F, dense = ls.to_pylops(op), op.todense().numpy()
    y = dense @ np.random.default_rng(1).normal(size=dense.shape[1])
    damp = 0.3
    x = lsqr(F, y, damp=damp, niter=300)[0].ravel()
    normal = dense.T @ dense + damp**2 * np.eye(dense.shape[1])
    assert np.allclose(x, np.linalg.solve(normal, dense.T @ y), atol=1e-8)
    both = pylops.VStack([F, damp * pylops.Identity(dense.shape[1], dtype="float64")])
    assert np.allclose(both.todense()[: len(dense)], dense, atol=1e-13)


def test_only_operators():
    with pytest.raises(TypeError, match="wants a MatrixFreeOperator, was given Linear"):
        ls.to_pylops(nn.Linear(2, 2))
