"""Every rule against its definition, written out for x0 and x; linear functions against F x."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import linscope_cuda as ls

LINE, IMAGE, VOLUME = (3, 12), (4, 6, 7), (2, 5, 6, 5)


class Net(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def rand(shape, seed=0, samples=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, *shape, generator=generator, dtype=torch.float64)


def relative(got, want):
    return ((got - want).norm() / want.norm().clamp_min(1e-300)).item()


def secant(h):
    """A x + c by its definition, for x0 that is nowhere near 0."""

    def by_hand(x0, x):
        zero = h(torch.zeros_like(x0))
        return (h(x0) - zero) / x0 * x + zero

    return by_hand


def normed(dims, centered=False, eps=1e-5):
    def by_hand(x0, x):
        mean = (x if centered else x0).mean(dims, keepdim=True)
        return (x - mean) / (x0.var(dims, correction=0, keepdim=True) + eps).sqrt()

    return by_hand


def grouped(x):
    return x.reshape(len(x), 2, -1)


def gathered(pool):
    """What a pool with indices into the flat image takes."""

    def by_hand(x0, x):
        _, at = pool(x0)
        dims = at.dim() - 2
        at = at.expand(len(x), *at.shape[1:])
        return x.flatten(-dims).gather(-1, at.flatten(-dims)).unflatten(-1, at.shape[-dims:])

    return by_hand


def lrn(x0, x):
    """Two channels before, itself, and two behind."""
    squares = F.pad(x0.square(), (0, 0, 0, 0, 2, 2))
    mean = sum(squares[:, i : i + 4] for i in range(5)) / 5
    return x / (2 + 0.3 * mean) ** 0.75


def attend(x0, x):
    weights = torch.softmax(x0 @ x0.mT / math.sqrt(12), -1)
    return weights @ x


mask = rand(LINE, 5)[0] > 0
other = rand(LINE, 6)[0]

# name: the function, the shape of its input, what it is for x frozen at x0.
RULES = {
    "elu": (lambda x: F.elu(x, 0.7), LINE, secant(lambda x: F.elu(x, 0.7))),
    "elu_": (lambda x: F.elu_(2 * x), LINE, lambda a, b: secant(F.elu)(2 * a, 2 * b)),
    "selu": (F.selu, LINE, secant(F.selu)),
    "celu": (lambda x: F.celu(x, 0.6), LINE, secant(lambda x: F.celu(x, 0.6))),
    "softplus": (lambda x: F.softplus(x, 2.0), LINE, secant(lambda x: F.softplus(x, 2.0))),
    "mish": (F.mish, LINE, secant(F.mish)),
    "logsigmoid": (F.logsigmoid, LINE, secant(F.logsigmoid)),
    "softsign": (F.softsign, LINE, secant(F.softsign)),
    "sin": (torch.sin, LINE, secant(torch.sin)),
    "exp": (lambda x: x.exp(), LINE, secant(torch.exp)),
    "hardswish": (F.hardswish, LINE, secant(F.hardswish)),
    "hardswish in place": (
        lambda x: F.hardswish(2 * x, inplace=True),
        LINE,
        lambda a, b: secant(F.hardswish)(2 * a, 2 * b),
    ),
    "hardsigmoid": (
        lambda x: F.hardsigmoid(3 * x),
        LINE,
        lambda x0, x: torch.where(x0.abs() < 1, x / 2 + 0.5, (x0 > 0).double()),
    ),
    "hardtanh": (
        lambda x: F.hardtanh(x, -0.5, 0.25),
        LINE,
        lambda x0, x: torch.where((x0 > -0.5) & (x0 < 0.25), x, x0.clamp(-0.5, 0.25)),
    ),
    "threshold": (
        lambda x: F.threshold(x, 0.3, -2.0),
        LINE,
        lambda x0, x: torch.where(x0 > 0.3, x, -2.0),
    ),
    "hardshrink": (F.hardshrink, LINE, lambda x0, x: torch.where(x0.abs() > 0.5, x, 0.0)),
    "softshrink": (
        F.softshrink,
        LINE,
        lambda x0, x: torch.where(x0.abs() > 0.5, x - 0.5 * x0.sign(), 0.0),
    ),
    "tanhshrink": (F.tanhshrink, LINE, lambda x0, x: x - torch.tanh(x0) / x0 * x),
    "prelu": (
        lambda x: F.prelu(x, torch.tensor([0.1, -0.2, 0.3], dtype=x.dtype)),
        LINE,
        lambda x0, x: torch.where(x0 > 0, x, x * other.new_tensor([[0.1], [-0.2], [0.3]])),
    ),
    "rrelu": (
        lambda x: F.rrelu(x, 0.1, 0.3),
        LINE,
        lambda x0, x: torch.where(x0 > 0, x, 0.2 * x),
    ),
    "abs": (lambda x: abs(x).abs() + (2 * x).abs_() / 2, LINE, lambda x0, x: 2 * x0.sign() * x),
    "square": (lambda x: x.square() + x**2 + x * x, LINE, lambda x0, x: 3 * x0 * x),
    "cube": (lambda x: x.pow(3), LINE, lambda x0, x: x0**2 * x),
    "maximum with a constant": (
        lambda x: torch.maximum(x, other),
        LINE,
        lambda x0, x: torch.where(x0 > other, x, other),
    ),
    "minimum with a constant": (
        lambda x: torch.min(x, other),
        LINE,
        lambda x0, x: torch.where(x0 < other, x, other),
    ),
    "maximum of two": (
        lambda x: torch.maximum(x, x.flip(1)),
        LINE,
        lambda x0, x: torch.where(x0 > x0.flip(1), x, x.flip(1)),
    ),
    "clamp": (
        lambda x: x.clamp(-other.abs(), 0 * other + 0.5),
        LINE,
        lambda x0, x: torch.where(
            (x0 > -other.abs()) & (x0 < 0.5), x, x0.maximum(-other.abs()).clamp(max=0.5)
        ),
    ),
    "clamp_min": (
        lambda x: x.clamp_min(0.2),
        LINE,
        lambda x0, x: torch.where(x0 > 0.2, x, 0.2),
    ),
    "hand-written relu": (
        lambda x: torch.where(x > 0, x, 0.1 * x) + x * (x.sign() + 1),
        LINE,
        lambda x0, x: torch.where(x0 > 0, 3 * x, 0.1 * x),
    ),
    "max over a dimension": (
        lambda x: x.max(1)[0] + torch.max(x, 1, keepdim=True).values[:, 0] + x.amax(1),
        LINE,
        lambda x0, x: 3 * x.gather(1, x0.argmax(1, True).expand(len(x), -1, -1))[:, 0],
    ),
    "amin over two": (
        lambda x: x.amin((1, 3), keepdim=True),
        IMAGE,
        lambda x0, x: x.transpose(2, 3)
        .flatten(1, 2)
        .gather(1, x0.transpose(2, 3).flatten(1, 2).argmin(1, True).expand(len(x), -1, -1))
        .unsqueeze(3),
    ),
    "topk": (
        lambda x: x.topk(3, -1)[0].sum(-1),
        LINE,
        lambda x0, x: x.gather(-1, x0.topk(3, -1)[1].expand(len(x), -1, -1)).sum(-1),
    ),
    "sort": (
        lambda x: x.sort(descending=True).values,
        LINE,
        lambda x0, x: x.gather(-1, x0.argsort(-1, True).expand(len(x), -1, -1)),
    ),
    "max_pool1d": (
        lambda x: F.max_pool1d(x, 3, 2, 1),
        LINE,
        gathered(lambda x: F.max_pool1d(x, 3, 2, 1, return_indices=True)),
    ),
    "max_pool3d": (
        lambda x: F.max_pool3d(x, (3, 2, 2), (1, 2, 1), (1, 0, 1), ceil_mode=True),
        VOLUME,
        gathered(
            lambda x: F.max_pool3d(
                x, (3, 2, 2), (1, 2, 1), (1, 0, 1), ceil_mode=True, return_indices=True
            )
        ),
    ),
    "adaptive_max_pool1d": (
        lambda x: F.adaptive_max_pool1d(x, 5),
        LINE,
        gathered(lambda x: F.adaptive_max_pool1d(x, 5, return_indices=True)),
    ),
    "adaptive_max_pool2d": (
        lambda x: F.adaptive_max_pool2d(x, (4, 3)),
        IMAGE,
        gathered(lambda x: F.adaptive_max_pool2d(x, (4, 3), return_indices=True)),
    ),
    "adaptive_max_pool3d": (
        lambda x: F.adaptive_max_pool3d(x, 2),
        VOLUME,
        gathered(lambda x: F.adaptive_max_pool3d(x, 2, return_indices=True)),
    ),
    "lp_pool1d": (
        lambda x: F.lp_pool1d(x.abs(), 3, 4),
        LINE,
        lambda x0, x: (x0.abs() ** 2 * x0.sign() * x).unflatten(2, (-1, 4)).sum(-1)
        / (x0.abs() ** 3).unflatten(2, (-1, 4)).sum(-1) ** (2 / 3),
    ),
    "lp_pool2d": (
        lambda x: F.lp_pool2d(x, 2, (2, 3), 1),
        IMAGE,
        lambda x0, x: F.avg_pool2d(x0 * x, (2, 3), 1) * 6 / F.lp_pool2d(x0, 2, (2, 3), 1),
    ),
    "local_response_norm": (lambda x: F.local_response_norm(x, 5, 0.3, 0.75, 2.0), IMAGE, lrn),
    "instance_norm": (F.instance_norm, IMAGE, normed((2, 3))),
    "group_norm": (
        lambda x: F.group_norm(x, 2),
        IMAGE,
        lambda x0, x: normed(2)(grouped(x0), grouped(x)).reshape(x.shape),
    ),
    "layer_norm": (
        lambda x: F.layer_norm(x, (12,), other[0], other[1]),
        LINE,
        lambda x0, x: normed(2)(x0, x) * other[0] + other[1],
    ),
    "rms_norm": (
        lambda x: F.rms_norm(x, (12,), other[0], 1e-3),
        LINE,
        lambda x0, x: x / (x0.square().mean(2, keepdim=True) + 1e-3).sqrt() * other[0],
    ),
    "normalize": (
        lambda x: F.normalize(x, dim=2),
        LINE,
        lambda x0, x: x / x0.norm(dim=2, keepdim=True),
    ),
    "log_softmax": (
        lambda x: x.log_softmax(-1),
        LINE,
        lambda x0, x: x - x0.logsumexp(-1, keepdim=True),
    ),
    "softmax times values": (
        lambda x: torch.softmax(x, -1) * x + F.softmin(x, 1) * x,
        LINE,
        lambda x0, x: (torch.softmax(x0, -1) + torch.softmax(-x0, 1)) * x,
    ),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x), LINE, attend),
    "attention by hand": (
        lambda x: torch.softmax(x @ x.transpose(1, 2) / math.sqrt(12), -1) @ x,
        LINE,
        attend,
    ),
    "glu": (
        lambda x: F.glu(x, 2),
        LINE,
        lambda x0, x: x[..., :6] * torch.sigmoid(x0[..., 6:]),
    ),
    "gate of a product": (
        lambda x: torch.sigmoid(2 * x) * x.cumsum(1),
        LINE,
        lambda x0, x: torch.sigmoid(2 * x0) * x.cumsum(1),
    ),
    "smaller factor": (
        lambda x: x * x.mean((2, 3), keepdim=True),
        IMAGE,
        lambda x0, x: x * x0.mean((2, 3), keepdim=True),
    ),
    "quotient": (
        lambda x: x / (x.cumsum(2) + 9),
        LINE,
        lambda x0, x: x / (x0.cumsum(2) + 9),
    ),
    "matrix product": (
        lambda x: torch.bmm(x, x.mT) + torch.einsum("bij,bkj->bik", x, x),
        LINE,
        lambda x0, x: 2 * x0 @ x.mT,
    ),
}  # fmt: skip


def operators(function, shape, policy="paper"):
    x0 = rand(shape)
    x0[x0.abs() < 0.05] = 0.4
    for storage in ("tape", "none"):
        yield ls.LinearInterpreter(Net(function), x0, policy, storage)


@pytest.mark.parametrize("name", RULES)
class TestRules:
    def test_is_what_its_definition_says(self, name):
        function, shape, by_hand = RULES[name]
        x = rand(shape, 1, samples=2)
        for op in operators(function, shape):
            assert relative(op.output, function(op.x0.clone())) < 1e-13
            want = by_hand(op.x0, torch.cat([op.x0, x, 0 * op.x0]))
            assert relative(want[:1], op.output) < 1e-13, "equation 3 of the definition"
            assert relative(op(x), want[1:3]) < 1e-12
            assert relative(op.residual, want[3:]) < 1e-12
            assert relative(op.filter(x), want[1:3] - want[3:]) < 1e-12
            assert op.dottest() < 1e-12

    def test_taylor_is_the_derivative(self, name):
        function, shape, _ = RULES[name]
        # torch's own derivative has 1/6 in single precision.
        digits = 1e-7 if name == "hardsigmoid" else 1e-10
        v = rand(shape, 1, samples=3)
        for op in operators(function, shape, "taylor"):
            with sdpa_kernel(SDPBackend.MATH):  # the others have no forward derivative
                pushed = [torch.func.jvp(function, (op.x0.clone(),), (t[None],))[1] for t in v]
                u = torch.randn_like(op.output)
                (pulled,) = torch.func.vjp(function, op.x0.clone())[1](u)
            assert relative(op.filter(v), torch.cat(pushed)) < digits
            assert relative(op.transpose(u), pulled) < digits
            assert relative(op.filter(op.x0) + op.residual, function(op.x0.clone())) < 1e-12


CENTERED = {
    "instance_norm": (F.instance_norm, IMAGE, normed((2, 3), True)),
    "group_norm": (
        lambda x: F.group_norm(x, 2),
        IMAGE,
        lambda x0, x: normed(2, True)(grouped(x0), grouped(x)).reshape(x.shape),
    ),
    "layer_norm": (lambda x: F.layer_norm(x, (3, 12)), LINE, normed((1, 2), True)),
    "others are as in the paper": (torch.sigmoid, LINE, secant(torch.sigmoid)),
}


@pytest.mark.parametrize("name", CENTERED)
def test_centered_keeps_the_mean_linear(name):
    function, shape, by_hand = CENTERED[name]
    x = rand(shape, 1, samples=2)
    for op in operators(function, shape, "centered"):
        assert relative(op(x), by_hand(op.x0, x)) < 1e-12
        assert relative(op(op.x0), function(op.x0)) < 1e-12


@pytest.mark.parametrize("function", [torch.sigmoid, F.softplus, torch.cos, F.silu])
def test_literal_is_the_papers_mask(function):
    for op in operators(function, LINE, "paper-literal"):
        x = rand(LINE, 1)
        assert relative(op(x), function(op.x0) / op.x0 * x) < 1e-13
        assert op.residual.count_nonzero() == 0


@pytest.mark.parametrize("name", ["softplus", "elu", "mish", "logsigmoid", "hardswish", "exp"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_secant_keeps_its_digits_near_zero(name, dtype):
    h = getattr(F, name, None) or getattr(torch, name)
    x0 = torch.tensor([[0.0, 1e-300, 1e-12, -1e-9, 1e-4, -0.01, 0.04999, 0.0501]])
    x0 = x0.to(dtype)
    slopes = ls.LinearInterpreter(Net(h), x0).todense().diagonal()
    z = x0[0].double()
    # The mean of h' over [0, x0] by a fine midpoint rule: exact h' from autograd.
    t = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000 * z[:, None]
    want = torch.func.jvp(h, (t,), (torch.ones_like(t),))[1].mean(1)
    torch.testing.assert_close(slopes.double(), want, rtol=3e-7, atol=0)


def test_half_precision_norms_keep_their_dtype():
    for function in (lambda x: F.layer_norm(x, (12,)), lambda x: F.rms_norm(x, (12,))):
        op = ls.LinearInterpreter(Net(function), rand(LINE).bfloat16())
        assert op.filter(op.x0).dtype == op.output.dtype == torch.bfloat16


def test_policies_by_function_module_and_factor():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Softplus(), nn.Softplus()
            self.gate = Net(lambda x: torch.sin(x) * x)

        def forward(self, x):
            return self.gate(self.b(self.a(x)))

    model, x0 = Two(), rand(LINE)
    policy = ls.Policy(
        functions={torch.sin: "taylor"}, modules={"b": "taylor"}, factors={"gate": "second"}
    )
    op = ls.LinearInterpreter(model, x0, policy)
    h1 = F.softplus(x0)
    h2 = F.softplus(h1)
    slope = (h1 - math.log(2)) / x0 * torch.sigmoid(h1) * torch.cos(h2) * h2
    assert relative(op.todense(), torch.diag(slope.flatten())) < 1e-12
    assert "taylor" in repr(policy) and "gate" in repr(policy)


@pytest.mark.parametrize(
    "arguments",
    [
        {"default": "guess"},
        {"functions": {"relu": "x"}},
        {"modules": {"a": "x"}},
        {"factors": {"a": "third"}},
    ],
)
def test_unknown_policies(arguments):
    with pytest.raises(ValueError, match="was given"):
        ls.Policy(**arguments)


def test_booleans_take_a_bit_and_indices_few_bytes():
    op = ls.LinearInterpreter(Net(lambda x: torch.maximum(x, other)), rand(LINE))
    assert op.tape.nbytes == 5  # 36 bits
    op = ls.LinearInterpreter(Net(lambda x: F.adaptive_max_pool2d(x, 2)), rand(IMAGE))
    assert op.tape.nbytes == 4 * 4


def test_what_a_network_does_to_a_decision_leaves_the_tape_alone():
    def function(x):
        weights = torch.softmax(x, 1)
        weights[:, 0] = 0
        return weights * x

    for op in operators(function, LINE):
        first = op.filter(op.x0)
        assert relative(op.filter(op.x0), first) == 0
        assert relative(op(op.x0), function(op.x0)) < 1e-14


constant = rand((12, 5), 3)[0]

LINEAR = {
    "conv1d": (lambda x: F.conv1d(x, rand((3, 3), 1, 4), rand((), 2, 4), padding=1), LINE),
    "conv3d": (lambda x: F.conv3d(x, rand((2, 2, 2, 2), 1, 3), rand((), 2, 3)), VOLUME),
    "conv_transpose3d": (lambda x: F.conv_transpose3d(x, rand((3, 2, 2, 2), 1, 2)), VOLUME),
    "grouped conv": (
        lambda x: F.conv2d(x, rand((2, 3, 3), 1, 6), bias=rand((), 2, 6), groups=2, stride=2),
        IMAGE,
    ),
    "pads": (
        lambda x: sum(
            F.pad(x, (2, 1), mode)
            for mode in ("constant", "reflect", "replicate", "circular")
        )
        + F.pad(x, (2, 1), value=3.0),
        LINE,
    ),
    "interpolate": (
        lambda x: sum(
            F.interpolate(x, size=(9, 5), mode=mode)
            for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area")
        ),
        IMAGE,
    ),
    "antialias": (
        lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True),
        IMAGE,
    ),
    "shuffles": (
        lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2) + F.channel_shuffle(x, 2),
        IMAGE,
    ),
    "fold": (lambda x: F.fold(F.unfold(x, 3, padding=1) * 2, (6, 7), 3, padding=1), IMAGE),
    "averages": (
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False).mean((2, 3))
        + F.adaptive_avg_pool2d(x, (2, 3)).sum((2, 3)),
        IMAGE,
    ),
    "avg_pool3d": (lambda x: F.adaptive_avg_pool3d(F.avg_pool3d(x, 2), 2), VOLUME),
    "indices": (
        lambda x: x[:, [0, 2]].roll(2, -1).flip(1) + x[:, 1:].cumsum(1) + x.narrow(1, 0, 2),
        LINE,
    ),
    "einsum": (
        lambda x: torch.einsum("bij,jk->bik", x, constant) + x @ constant
        + torch.tensordot(x, constant, 1) + torch.matmul(rand((3, 3), 8)[0], x @ constant),
        LINE,
    ),
    "outer": (lambda x: torch.kron(x, rand((2,), 1)) + torch.lerp(x, other, 0.3).repeat(1, 1, 2),
              LINE),
    "fft": (lambda x: torch.fft.irfft(torch.fft.rfft(x) * 1j, n=12) + torch.fft.fft(x).real, LINE),
    "writes": (lambda x: _written(x), LINE),
    "into a constant": (lambda x: _collected(x), LINE),
    "masked_fill": (lambda x: x.masked_fill(mask, 5.0) + x.masked_fill(~mask, 0.0), LINE),
    "scatter": (
        lambda x: torch.ones_like(x).scatter_add(2, torch.arange(12).expand(len(x), 3, 12) // 2, x)
        + x.index_add(1, torch.tensor([0, 0, 2]), other.expand_as(x)),
        LINE,
    ),
    "addmm": (lambda x: torch.baddbmm(x[..., :5], x, constant.expand(len(x), 12, 5)) if False
              else torch.baddbmm(other[:, :5], x, constant.expand(len(x), 12, 5), beta=2), LINE),
    "rsub": (lambda x: 1 - x + torch.add(x, other, alpha=3) - torch.rsub(x, 2), LINE),
    "batch_norm": (
        lambda x: F.batch_norm(x, other[0, :3], other[1, :3].abs(), other[2, :3], other[0, 3:6]),
        LINE,
    ),
    "torch.batch_norm": (
        lambda x: torch.batch_norm(x, other[2, :3], other[0, 3:6], other[0, :3], other[1, :3].abs(),
                                   False, 0.1, 1e-3, False),
        LINE,
    ),
    "in-place arithmetic": (lambda x: x.mul_(2).add_(other).sub_(1).div_(3), LINE),
}  # fmt: skip


def test_arguments_may_be_given_by_name():
    def function(x):
        h = F.conv2d(input=x, weight=rand((4, 3, 3), 1, 2), bias=rand((), 2, 2))
        h = F.max_pool2d(input=F.relu(input=h, inplace=True), kernel_size=2)
        h = F.layer_norm(input=torch.sigmoid(input=h), normalized_shape=h.shape[1:])
        return torch.add(input=h, other=F.softplus(input=h)) + torch.mul(input=h, other=h)

    for op in operators(function, IMAGE):
        assert op.certify().ok


def _written(x):
    y = 2 * x
    y[:, 0] = x[:, 1]
    y[:, 1, :3] = 7.0
    y[..., 4] += other[:, 4]
    y.index_copy_(2, torch.tensor([6]), x[..., :1])
    y.select(1, 2).copy_(x[:, 0])
    return y


def _collected(x):
    y = torch.full((len(x), 5, 12), 3.0, dtype=x.dtype)
    y[:, 1:4] = x
    row = y[:, 4]
    row.add_(x[:, 0])
    return y


@pytest.mark.parametrize("name", LINEAR)
def test_linear_functions(name):
    function, shape = LINEAR[name]
    x = rand(shape, 1, samples=2)
    offset = function(torch.zeros(1, *shape, dtype=torch.float64))
    for op in operators(function, shape):
        assert len(op.tape) == 0
        assert relative(op(x), function(x.clone())) < 1e-13
        assert relative(op.filter(x), function(x.clone()) - offset) < 1e-13
        assert (op.residual - offset).abs().max() < 1e-12
        assert op.dottest() < 1e-13
        assert torch.equal(x, rand(shape, 1, samples=2)), "a product must not write into its probe"


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
def test_multi_head_attention(batch_first, need_weights):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 3, batch_first=batch_first).double().eval()
    nn.init.normal_(attention.in_proj_bias)
    other_order = nn.Identity() if batch_first else Net(lambda x: x.transpose(0, 1))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention

        def forward(self, x):
            x = other_order(x)
            return other_order(self.attention(x, x, x, need_weights=need_weights)[0])

    x = rand((5, 12), 1, samples=2)
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    for storage in ("tape", "none"):
        op = ls.LinearInterpreter(Block(), rand((5, 12)), storage=storage)
        q, k, _ = ((op.x0 @ w.T + b).view(5, 3, 4).transpose(0, 1)
                   for w, b in zip(weight.chunk(3), bias.chunk(3), strict=True))  # fmt: skip
        shares = torch.softmax(q @ k.mT / 2, -1)
        v = (x @ weight[24:].T + bias[24:]).view(2, 5, 3, 4).transpose(1, 2)
        want = attention.out_proj((shares @ v).transpose(1, 2).flatten(2))
        assert relative(op(x), want) < 1e-13
        assert relative(op.output, Block()(op.x0)) < 1e-13


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_transformer_layer(batch_first):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 3, 20, activation="gelu", batch_first=batch_first)
    model = Net(layer.double().eval() if batch_first else lambda x: layer(x.mT).mT)
    if batch_first:
        op = ls.LinearInterpreter(model, rand((5, 12)))
        assert relative(op(op.x0), layer(op.x0)) < 1e-12
        assert op.dottest() < 1e-12
