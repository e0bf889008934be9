"""Linear functions beside constants, casts and writes: right, or refused by name, with no check."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_rules import Net, rand, relative
from torch import nn

import linscope_cuda as ls

LINE = (3, 12)
c = rand(LINE, 7)[0]
square = rand((12, 12), 8)[0]


def ones(x):
    return torch.ones_like(x)


def factor_in_place(x):
    y = ones(x) * c
    y *= 2 * x
    return y


def factor_of_a_part(x):
    y = ones(x) * c
    y[:, :2] *= x[:, :2]
    return y


def factor_by_method(x):
    y = ones(x) * c
    y.mul_(x)
    return y


def addmm_(x):
    y = torch.full((len(x) * 3, 12), 0.5, dtype=x.dtype)
    y.addmm_(x.reshape(-1, 12), square, beta=2, alpha=3)
    return y.reshape(x.shape)


def addmm_of_a_probe(x):
    y = 2 * x.reshape(-1, 12)
    y.addmm_(c.repeat(len(x), 1), square)
    return y.reshape(x.shape)


def baddbmm_(x):
    y = torch.full_like(x, 0.5)
    y.baddbmm_(x, square.expand(len(x), 12, 12))
    return y


def addcmul_(x):
    y = torch.full_like(x, 0.5)
    y.addcmul_(x, c.expand_as(x), value=3)
    return y


def addmv_(x):
    y = torch.full((len(x) * 3,), 0.5, dtype=x.dtype)
    y.addmv_(x.reshape(-1, 12), square[0])
    return y.reshape(len(x), 3)


def addr_(x):
    y = torch.full((len(x) * 36, 3), 0.5, dtype=x.dtype)
    y.addr_(x.flatten(), square[0, :3])
    return y.reshape(len(x), 36, 3)


def _corners(y, samples):
    """The upper left of a block diagonal matrix, and the sum of the rest."""
    return y[:samples, :36] + y[samples:].sum()


RIGHT = {
    "c *= x": factor_in_place,
    "c[:, :2] *= x": factor_of_a_part,
    "c.mul_(x)": factor_by_method,
    "addmm_": addmm_,
    "addmm_ of a probe": addmm_of_a_probe,
    "baddbmm_": baddbmm_,
    "addcmul_": addcmul_,
    "addmv_": addmv_,
    "addr_": addr_,
    "addmm by name": lambda x: torch.addmm(
        input=c.repeat(len(x), 1), mat1=x.reshape(-1, 12), mat2=square
    ).reshape(x.shape),
    "a NumPy number": lambda x: x + np.float32(1.5) - np.float64(0.25) * np.int64(3),
    "diff": lambda x: torch.diff(
        x, prepend=ones(x)[..., :2], append=c.expand_as(x)[..., :1]
    ),
    "block_diag": lambda x: _corners(torch.block_diag(x.flatten(1), c), len(x)),
    "bilinear": lambda x: F.bilinear(x, ones(x), rand((12, 12), 3, 5), rand((), 4, 5)),
    "conv_tbc": lambda x: torch.conv_tbc(
        x, rand((12, 4), 3, 1), rand((), 4, 4), 0
    ),
    "to places of its own": lambda x: torch.zeros_like(x)
    .scatter(2, torch.arange(11, -1, -1).expand(x.shape), 2 * x)
    .index_copy(1, torch.tensor([2]), x[:, :1])
    .index_put((torch.arange(len(x)), torch.tensor([1])), x[:, 0, 0][:, None]),
    "atleast_2d of two": lambda x: sum(torch.atleast_2d(x, c)),
    "nansum": lambda x: x.nansum(2) + torch.nansum(x, (1, 2))[:, None],
    "fftshift": lambda x: torch.fft.fftshift(x, 2) - 2 * torch.fft.ifftshift(x, (1, 2)),
    "put": lambda x: (2 * x).put(torch.arange(len(x)) * 36 + 5, x[:, 1, 1]),
    "a system of equations": lambda x: torch.linalg.solve(square, x.mT).mT,
    "a seeded draw": lambda x: x
    * torch.randn(3, 12, dtype=x.dtype, generator=torch.Generator().manual_seed(3)),
}  # fmt: skip


@pytest.mark.parametrize("storage", ["tape", "none"])
@pytest.mark.parametrize("name", RIGHT)
def test_right_without_a_check(name, storage):
    function = RIGHT[name]
    x0, x = rand(LINE), rand(LINE, 1)
    offset = function(torch.zeros_like(x0))
    op = ls.LinearInterpreter(Net(function), x0, storage=storage, check=False)
    assert relative(op.output, function(x0.clone())) < 1e-14
    assert (op.residual - offset).abs().max() < 1e-13
    assert relative(op.filter(x), function(x.clone()) - offset) < 1e-13
    u = torch.randn_like(op.output)
    pulled = torch.func.vjp(function, x0.clone())[1](u)[0]
    assert relative(op.transpose(u), pulled) < 1e-13
    ledger = ls.ledger(op, [op.shape[0] - 1])
    total = ledger.values.sum(0) + ledger.input
    assert (total - op.output.flatten()[-1]).abs().max() < 1e-12


def written(out):
    def function(x):
        torch.add(x, 1, out=out)
        return out

    return function


def _unpooled(x):
    """Windows that overlap name a place twice."""
    peaks = (torch.arange(12) % 3 == 1).float().expand(3, 12)
    at = F.max_pool1d(peaks, 3, 1, return_indices=True)[1]
    return F.max_unpool1d(x[..., :10], at.expand(len(x), 3, 10), 3, 1)


REFUSED = {
    "unpooling from overlaps": _unpooled,
    "scatter to one place": lambda x: torch.zeros_like(x).scatter(
        2, torch.zeros(x.shape, dtype=torch.int64), x
    ),
    "index_copy to one place": lambda x: torch.zeros_like(x).index_copy(
        1, torch.tensor([0, 1, 1]), x
    ),
    "index_put to one place": lambda x: torch.zeros_like(x).index_put(
        (torch.tensor([0]), torch.tensor([1, 1, 2])), x[0]
    ),
    "setitem to one place": lambda x: _set_twice(x),
    "type": lambda x: x.type(torch.int64) + x,
    "to": lambda x: x.to(torch.int32) + x,
    "long": lambda x: x.long() + x,
    "a string": lambda x: x.type("torch.LongTensor") + x,
    "sum": lambda x: x.sum(2, dtype=torch.int64)[..., None] + x,
    "cumsum": lambda x: x.cumsum(2, dtype=torch.int64) + x,
    "view": lambda x: x.view(torch.int64) + x,
    "view as floats": lambda x: x.view(torch.float32).double().sum(2, keepdim=True) + x,
    "copy into integers": lambda x: torch.zeros(x.shape, dtype=torch.int64).copy_(x) + x,
    "setitem of integers": lambda x: _into_integers(x) + x,
    "new_tensor": lambda x: x + x.new_tensor(x),
    "full_like": lambda x: x + torch.full_like(c, x[0, 0, 0]),
    "new_full": lambda x: x + x.new_full((1,), x[0, 0, 0]),
    "prelu": lambda x: F.prelu(x, x[0, :, 0]),
    "a Parameter": lambda x: x * nn.Parameter(x.detach()),
    "rand": lambda x: x * torch.rand(12, dtype=x.dtype),
    "randn_like": lambda x: x + torch.randn_like(x),
    "randn_like of a constant": lambda x: x * torch.randn_like(c),
    "normal_": lambda x: x * torch.empty_like(c).normal_(),
    "bernoulli": lambda x: x * torch.bernoulli(torch.full_like(c, 0.5)),
    "randperm": lambda x: x[..., torch.randperm(12)],
    "out": lambda x: written(torch.zeros_like(x))(x),
    "a constant written over": lambda x: torch.full_like(x, 9.0).clamp_(max=x),
    "instance norm by x": lambda x: F.instance_norm(x, weight=x[0, :, 0]),
    "threshold by x": lambda x: torch.where(x > 0, x, 0) + F.hardtanh(x, 0.0, x[0, 0, 0]),
}


def _set_twice(x):
    y = torch.zeros_like(x)
    y[:, [0, 0, 1]] = x
    return y


def _into_integers(x):
    y = torch.zeros(x.shape, dtype=torch.int64)
    y[:] = x
    return y


@pytest.mark.parametrize("storage", ["tape", "none"])
@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_without_a_check(name, storage):
    with pytest.raises(ls.UnscopedOperation, match=r"\w+ (in Net|rounds|acts on|has no rule)"):
        ls.LinearInterpreter(Net(REFUSED[name]), rand(LINE), storage=storage, check=False)


def test_a_comparison_may_name_its_arguments():
    function = lambda x: torch.where(torch.lt(c, other=x), x, 0.5 * x)  # noqa: E731
    x0, x = rand(LINE), rand(LINE, 1, 2)
    for storage in ("tape", "none"):
        op = ls.LinearInterpreter(Net(function), x0, storage=storage, check=False)
        assert relative(op.filter(x), torch.where(c < x0, x, 0.5 * x)) < 1e-15
        assert relative(op.filter(-x), -op.filter(x)) < 1e-15


def test_a_tensor_that_a_module_keeps_is_not_zeroed():
    class Canvas(nn.Module):
        def __init__(self):
            super().__init__()
            self.canvas = torch.full((1, 3, 12), 2.0, dtype=torch.float64)

        def forward(self, x):
            self.canvas[:, 0] = x[:, 0]
            return self.canvas + x

    model = Canvas()
    with pytest.raises(ls.UnscopedOperation, match="writes into the model's own tensor"):
        ls.LinearInterpreter(model, rand(LINE), check=False)
    assert (model.canvas[:, 1:] == 2).all()


def test_scale_0_of_attention_is_0():
    x0 = rand((5, 8))
    attend = Net(lambda x: F.scaled_dot_product_attention(x, x, x, scale=0.0))
    op = ls.LinearInterpreter(attend, x0, check=False)
    assert relative(op.output, x0.mean(1, keepdim=True).expand_as(x0)) < 1e-15
    assert relative(op.filter(2 * x0), 2 * op.output) < 1e-15
