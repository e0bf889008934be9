"""The map from one module's output to another's."""

import pytest
import torch
from torch import nn

import linscope_cuda as ls


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(2, 4, 3, padding=1).double()
        self.body = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
        self.body.double()
        self.head = nn.Conv2d(4, 3, 3).double()
        self.twice = nn.Tanh()

    def forward(self, x):
        h = self.stem(x)
        y = self.twice(self.body(h)) + h
        return self.twice(self.head(y) + x.mean(1, keepdim=True)[..., 1:-1, 1:-1])


@pytest.fixture(scope="module")
def op():
    model = Net().eval()
    nn.init.normal_(model.body[0].running_mean)
    return ls.LinearInterpreter(model, torch.randn(1, 2, 6, 5, dtype=torch.float64), "taylor")


@pytest.mark.parametrize("count", [1, 3])
def test_a_part_is_the_derivative_of_the_part(op, count):
    model = op.model
    h = model.stem(op.x0).detach()
    inner = op.between("stem", "body")
    J = torch.autograd.functional.jacobian(model.body, h).reshape(inner.shape)
    v = torch.randn(count, *inner.input_shape, dtype=torch.float64)
    assert torch.equal(inner.x0, h)
    torch.testing.assert_close(inner.output, model.body(h))
    torch.testing.assert_close(inner.todense(), J)
    torch.testing.assert_close(inner.filter(v).flatten(1), v.flatten(1) @ J.T)
    torch.testing.assert_close(inner(inner.x0), inner.output)
    assert inner.dottest() < 1e-12


def test_what_goes_past_it_is_that_of_x0(op):
    """The head sees the stem by the body and beside it, and nothing else of the input."""
    model = op.model
    b = model.body(model.stem(op.x0)).detach()
    part = op.between("body", "head")

    def rest(b):
        return model.head(torch.tanh(b) + model.stem(op.x0))

    J = torch.autograd.functional.jacobian(rest, b).reshape(part.shape)
    torch.testing.assert_close(part.todense(), J)
    torch.testing.assert_close(part.filter(b) + part.residual, rest(b))


def test_parts_of_a_chain_multiply(op):
    first, second = op.between("stem", "body.0"), op.between("body.0", "body")
    whole = op.between("stem", "body")
    torch.testing.assert_close((second @ first).todense(), whole.todense())


def test_parts_that_there_are_not(op):
    with pytest.raises(ValueError, match=r"no module 'neck'; there are stem, body, body\.0"):
        op.between("neck", "head")
    with pytest.raises(ValueError, match=r"'twice' gives no tensor .*\(2 times\)"):
        op.between("stem", "twice")
    with pytest.raises(ValueError, match="second is not made of the first"):
        op.between("head", "stem")
