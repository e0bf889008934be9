"""Products under torch's transforms, and interpreters that are copied."""

import copy
import pickle

import pytest
import torch
from networks import build, example

import linscope_cuda as ls


@pytest.fixture
def op():
    from networks import Image

    return ls.LinearInterpreter(build(Image), example(Image))


def probes(op, *more):
    generator = torch.Generator().manual_seed(3)
    v = torch.randn(*more, *op.input_shape, generator=generator, dtype=torch.float64)
    u = torch.randn(*more, *op.output_shape, generator=generator, dtype=torch.float64)
    return v, u


def test_derivatives_of_a_product_are_products(op):
    v, u = probes(op, 2)
    y, pull_back = torch.func.vjp(op.filter, v)
    assert torch.equal(y, op.filter(v))
    torch.testing.assert_close(pull_back(u)[0], op.transpose(u))
    y, pushed = torch.func.jvp(op.transpose, (u,), (2 * u,))
    assert torch.equal(y, op.transpose(u))
    torch.testing.assert_close(pushed, op.transpose(2 * u))

    def energy(v):
        return op.filter(v).square().sum() / 2

    torch.testing.assert_close(torch.func.grad(energy)(v), op.transpose(op.filter(v)))


def test_jacobians_of_products_are_the_matrix(op):
    v, u = probes(op, 1)
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        J = jacobian(op.filter)(v).reshape(op.shape)
        torch.testing.assert_close(J, op.todense())
        J = jacobian(op.transpose)(u).reshape(op.shape[::-1])
        torch.testing.assert_close(J, op.todense().T)


@pytest.mark.parametrize("dim", [0, 1])
def test_vmap_is_more_probes(op, dim):
    v, u = probes(op, 3, 2)
    for product, x in ((op.filter, v), (op.transpose, u)):
        want = torch.stack([product(part) for part in x.movedim(dim, 0)])
        torch.testing.assert_close(torch.func.vmap(product, dim)(x), want)
    singly = torch.func.vmap(torch.func.vmap(lambda x: op.filter(x[None])[0]))(v)
    torch.testing.assert_close(singly, op.filter(v.flatten(0, 1)).unflatten(0, (3, 2)))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda op: pickle.loads(pickle.dumps(op))])
def test_a_copy_gives_the_same_products(op, copied):
    v, u = probes(op, 2)
    want = op.filter(v), op.transpose(u), op.residual
    for source in (op, ls.LinearInterpreter(op.model, op.x0)):  # with and without its lines made
        other = copied(source)
        got = other.filter(v), other.transpose(u), other.residual
        assert all(map(torch.equal, got, want))
        assert other.model is not op.model and other.certify().ok
