"""Products of two activations: which factor is the gate, and what becomes of those without one."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_rules import IMAGE, LINE, Net, operators, rand, relative, secant
from torch import nn

import linscope_cuda as ls

W, V = (rand((12, 12), seed)[0] / 4 for seed in (1, 2))


def hand_sigmoid(x):
    return 1 / (1 + torch.exp(-x))


# name: the function, the shape of its input, what it is for x frozen at x0.
GATED = {
    "swish": (lambda x: x * hand_sigmoid(x), LINE, lambda a, x: x * torch.sigmoid(a)),
    "swish of what was decided on": (
        lambda x: torch.relu(x) * hand_sigmoid(torch.relu(x)),
        LINE,
        lambda a, x: x * (a > 0) * torch.sigmoid(torch.relu(a)),
    ),
    "mish": (
        lambda x: x * torch.tanh(F.softplus(x)),
        LINE,
        lambda a, x: x * torch.tanh(F.softplus(a)),
    ),
    "gelu": (
        lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
        LINE,
        lambda a, x: x * F.gelu(a) / a,
    ),
    "gelu by tanh": (
        lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        LINE,
        lambda a, x: x * F.gelu(a, approximate="tanh") / a,
    ),
    "hardswish": (
        lambda x: x * F.relu6(x + 3) / 6,
        LINE,
        lambda a, x: x * F.hardsigmoid(a),
    ),
    "a hard gate through views": (
        lambda x: (2 * F.hardsigmoid(x).flatten(1)).view_as(x).mT.mT * (x @ W),
        LINE,
        lambda a, x: 2 * F.hardsigmoid(a) * (x @ W),
    ),
    "geglu": (
        lambda x: F.gelu(x @ W) * (x @ V),
        LINE,
        lambda a, x: F.gelu(a @ W) * (x @ V),
    ),
    "swiglu, the gate second": (
        lambda x: F.linear(x, V) * F.silu(F.linear(x, W)),
        LINE,
        lambda a, x: F.silu(a @ W.T) * (x @ V.T),
    ),
    "a unit of a GRU": (
        lambda x: (1 - torch.sigmoid(x @ W)) * x + torch.sigmoid(x @ W) * torch.tanh(x @ V),
        LINE,
        lambda a, x: (
            (1 - torch.sigmoid(a @ W)) * x
            + torch.sigmoid(a @ W) * torch.tanh(a @ V) / (a @ V) * (x @ V)
        ),
    ),
    "a gate of the layer before": (
        lambda x: torch.tanh(x) @ W * torch.tanh(x @ V),
        LINE,
        lambda a, x: (torch.tanh(a) / a * x) @ W * torch.tanh(a @ V),
    ),
    "an upsampled gate": (
        lambda x: F.interpolate(torch.sigmoid(x[..., ::2, ::2]), x.shape[2:]) * x.flip(1),
        IMAGE,
        lambda a, x: F.interpolate(torch.sigmoid(a[..., ::2, ::2]), a.shape[2:]) * x.flip(1),
    ),
    "written in place": (
        lambda x: (x @ V).mul_((x @ W).sigmoid_()),
        LINE,
        lambda a, x: torch.sigmoid(a @ W) * (x @ V),
    ),
}


def _open(x, a):
    return x * (a > 0)


def _bilinear(x, y):
    return torch.einsum("bij,kjl,bil->bik", x, rand((12, 12), 3, 5), y)


# name: the function, and the product of two inputs that it is; a is x0.
HALVES = {
    "a simple gate": (
        lambda x: x[..., :6] * x[..., 6:],
        lambda x, y, a: x[..., :6] * y[..., 6:],
    ),
    "two layers": (lambda x: (x @ W) * (x @ V), lambda x, y, a: (x @ W) * (y @ V)),
    "two of one kind": (
        lambda x: torch.relu(x) * torch.relu(x).flip(2),
        lambda x, y, a: _open(x, a) * _open(y, a).flip(2),
    ),
    "bilinear": (
        lambda x: F.bilinear(x, x, rand((12, 12), 3, 5)),
        lambda x, y, a: _bilinear(*torch.broadcast_tensors(x, y)),
    ),
    "cross": (
        lambda x: torch.cross(x[..., :3], x[..., 3:6], -1),
        lambda x, y, a: torch.cross(*torch.broadcast_tensors(x[..., :3], y[..., 3:6]), -1),
    ),
    "addcmul": (
        lambda x: torch.addcmul(0 * x, x @ W, x @ V, value=2),
        lambda x, y, a: 2 * (x @ W) * (y @ V),
    ),
}


@pytest.mark.parametrize("name", GATED)
def test_the_gate_is_the_factor_that_was_decided_on(name):
    function, shape, by_hand = GATED[name]
    x = rand(shape, 7, samples=2)
    for op in operators(function, shape):
        assert relative(by_hand(op.x0, op.x0), function(op.x0.clone())) < 1e-13
        assert relative(op(x), by_hand(op.x0, x)) < 1e-12
        assert op.dottest() < 1e-12


@pytest.mark.parametrize("name", HALVES)
def test_two_of_one_rank_are_treated_alike(name):
    function, product = HALVES[name]
    x = rand(LINE, 7, samples=2)
    for op in operators(function, LINE):
        want = (product(op.x0, x, op.x0) + product(x, op.x0, op.x0)) / 2
        assert relative(op.filter(x), want) < 1e-12
        assert op.residual.abs().max() < 1e-15
        assert relative(op.filter(op.x0), function(op.x0.clone())) < 1e-13
        assert op.dottest() < 1e-12


def test_a_policy_chooses_otherwise():
    x0, x = rand(LINE), rand(LINE, 1)
    model = Net(lambda x: (x @ W) * (x @ V))
    for factor, by_hand in (
        ("first", lambda a, x: (a @ W) * (x @ V)),
        ("second", lambda a, x: (x @ W) * (a @ V)),
    ):
        op = ls.LinearInterpreter(model, x0, ls.Policy(factors={"Net": factor}))
        assert relative(op.filter(x), by_hand(x0, x)) < 1e-13
    half = ls.LinearInterpreter(model, x0, ls.Policy(factors={"*": "half"}))
    assert torch.equal(half.filter(x), ls.LinearInterpreter(model, x0).filter(x))
    with pytest.raises(ls.UnscopedOperation, match=r"mul.* in Net.*none is.*'Net'"):
        ls.LinearInterpreter(model, x0, ls.Policy(products="refuse"))
    with pytest.raises(ValueError, match="products wants one of half, refuse"):
        ls.Policy(products="both")


class LayerNorm2d(nn.Module):
    """As ConvNeXt and NAFNet write it."""

    def forward(self, x):
        u = x.mean(1, keepdim=True)
        s = (x - u).pow(2).mean(1, keepdim=True)
        return (x - u) / torch.sqrt(s + 1e-6)


def by_layer_norm(x):
    return F.layer_norm(x.permute(0, 2, 3, 1), (4,), eps=1e-6).permute(0, 3, 1, 2)


# What people write out, and what torch has a function for: one system, to rounding.
SPELLINGS = {
    "rms norm": (
        lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5),
        lambda x: F.rms_norm(x, (12,), eps=1e-5),
        LINE,
    ),
    "rms norm by a quotient": (
        lambda x: x / torch.sqrt(torch.mean(x * x, -1, keepdim=True) + 1e-5),
        lambda x: F.rms_norm(x, (12,), eps=1e-5),
        LINE,
    ),
    "unit length": (
        lambda x: x / x.norm(dim=-1, keepdim=True),
        lambda x: F.normalize(x, dim=-1),
        LINE,
    ),
    "unit length by linalg": (
        lambda x: x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True),
        lambda x: F.normalize(x.flatten(1), dim=-1).view_as(x),
        LINE,
    ),
    "cosine similarity": (
        lambda x: (F.normalize(x, dim=-1) * F.normalize(x.flip(1), dim=-1)).sum(-1),
        lambda x: F.cosine_similarity(x, x.flip(1), dim=-1),
        LINE,
    ),
    "a standard deviation": (
        lambda x: x / x.std(-1, keepdim=True),
        lambda x: x / (x.var(-1, keepdim=True)).sqrt(),
        LINE,
    ),
    "a distance": (
        lambda x: torch.cdist(x, x.flip(2)),
        lambda x: (x[:, :, None] - x.flip(2)[:, None]).pow(2).sum(-1).sqrt(),
        LINE,
    ),
    "a mean power": (
        lambda x: x.abs().clamp(min=1e-6).pow(3).mean(-1).pow(1 / 3),
        lambda x: F.lp_pool1d(x.abs(), 3, 12).squeeze(-1) / 12 ** (1 / 3),
        LINE,
    ),
}


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("policy", ["paper", "taylor"])
def test_what_is_written_out_is_what_the_function_gives(name, policy):
    by_hand, function, shape = SPELLINGS[name]
    x = rand(shape, 7, samples=2)
    pairs = zip(operators(by_hand, shape, policy), operators(function, shape, policy), strict=True)
    for ours, theirs in pairs:
        assert relative(ours.output, theirs.output) < 1e-13
        assert relative(ours.filter(x), theirs.filter(x)) < 1e-11
        assert (ours.residual - theirs.residual).abs().max() < 1e-11


@pytest.mark.parametrize("policy", ["centered", "taylor"])
def test_a_norm_written_out_keeps_its_mean_linear(policy):
    """Nobody says that the mean is a decision: it is one of a norm, and linear where it stands."""
    x = rand(IMAGE, 7, samples=2)
    pairs = zip(
        operators(LayerNorm2d(), IMAGE, policy),
        operators(by_layer_norm, IMAGE, policy),
        strict=True,
    )
    for ours, theirs in pairs:
        assert relative(ours.filter(x), theirs.filter(x)) < 1e-11
        assert (ours.residual - theirs.residual).abs().max() < 1e-11


def test_a_charbonnier_loss_is_a_secant_of_its_root():
    for op in operators(lambda x: torch.sqrt(x * x + 1e-3), LINE):
        x = rand(LINE, 7)
        want = secant(torch.sqrt)(op.x0**2 + 1e-3, op.x0 * x + 1e-3)
        assert relative(op(x), want) < 1e-12
