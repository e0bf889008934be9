"""The doubled batch: drop-in layers and the patcher, against the units written out."""

import pytest
import torch
import torch.nn.functional as F
from networks import INPUTS, PIECEWISE, Gated, Spellings, build, example
from torch import nn

import linscope_cuda as ls


def units():
    """(scope layer, plain layer) with the same arguments and parameters."""
    torch.manual_seed(0)
    prelu = ls.PReLUScope(3, init=0.3)
    norm = ls.InstanceNorm2dScope(3, affine=True, eps=1e-3)
    tracked = ls.InstanceNorm2dScope(3, track_running_stats=True).eval()
    assert tracked.running_mean is not None
    tracked.running_mean.normal_()
    nn.init.normal_(norm.weight)
    plain_norm = nn.InstanceNorm2d(3, affine=True, eps=1e-3)
    plain_norm.load_state_dict(norm.state_dict())
    plain_tracked = nn.InstanceNorm2d(3, track_running_stats=True).eval()
    plain_tracked.load_state_dict(tracked.state_dict())
    return {
        "ReLU": (ls.ReLUScope(inplace=True), nn.ReLU()),
        "LeakyReLU": (ls.LeakyReLUScope(0.2), nn.LeakyReLU(0.2)),
        "PReLU": (prelu, nn.PReLU(3, init=0.3)),
        "Hardtanh": (ls.HardtanhScope(-0.5, 0.25), nn.Hardtanh(-0.5, 0.25)),
        "ReLU6": (ls.ReLU6Scope(), nn.ReLU6()),
        "Sigmoid": (ls.SigmoidScope(), nn.Sigmoid()),
        "Tanh": (ls.TanhScope(), nn.Tanh()),
        "SiLU": (ls.SiLUScope(), nn.SiLU()),
        "GELU": (ls.GELUScope(), nn.GELU()),
        "GELU tanh": (ls.GELUScope(approximate="tanh"), nn.GELU(approximate="tanh")),
        "MaxPool2d": (
            ls.MaxPool2dScope(3, 2, 1, ceil_mode=True),
            nn.MaxPool2d(3, 2, 1, 1, False, True),
        ),
        "InstanceNorm2d": (norm, plain_norm),
        "InstanceNorm2d eval": (tracked, plain_tracked),
    }


@pytest.mark.parametrize("name", units())
class TestScopeLayers:
    def x(self, samples=1, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return 3 * torch.randn(samples, 3, 9, 8, generator=generator)

    def test_equations_2_and_3(self, name):
        scope, plain = units()[name]
        x0, x1 = self.x(), self.x(seed=1)
        y = scope(torch.cat([x0, x1, x0]))
        torch.testing.assert_close(y[:1], plain(x0))
        torch.testing.assert_close(y[2:], plain(x0))
        # Affine in the probe, whatever it does to x0.
        parts = scope(torch.cat([x0, 2 * x1 - 3 * x0, torch.zeros_like(x0)]))
        r = parts[2]
        torch.testing.assert_close(
            parts[1] - r, 2 * (y[1] - r) - 3 * (y[2] - r), rtol=1e-4, atol=1e-4
        )

    def test_several_references(self, name):
        scope, plain = units()[name]
        scope.references = 2
        x0, x1 = self.x(2), self.x(4, seed=1)
        y = scope(torch.cat([x0, x1]))
        torch.testing.assert_close(y[:2], plain(x0))
        scope.references = 1
        for j in range(4):
            alone = scope(torch.cat([x0[j % 2 : j % 2 + 1], x1[j : j + 1]]))
            torch.testing.assert_close(y[2 + j], alone[1])

    def test_the_patcher_does_the_same_to_the_plain_layer(self, name):
        scope, plain = units()[name]
        x = torch.cat([self.x(), self.x(2, seed=1)])
        with ls.patch(plain) as scoped:
            torch.testing.assert_close(scoped(x), scope(x), rtol=0, atol=0)

    def test_loads_the_plain_layers_weights(self, name):
        scope, plain = units()[name]
        scope.load_state_dict(plain.state_dict())
        assert isinstance(scope, type(plain)) and "references=1" in repr(scope)


def test_a_scope_wants_a_reference():
    with pytest.raises(ValueError, match="ReLUScope wants 1 reference"):
        ls.ReLUScope(references=0)


@pytest.mark.parametrize("kind", [*PIECEWISE, Gated])
class TestPatch:
    def test_equation_5(self, kind):
        model, x0 = build(kind), example(kind)
        probes = torch.cat([example(kind, s) for s in (5, 6)])
        op = ls.LinearInterpreter(model, x0)
        with ls.patch(model) as scoped:
            y = scoped(torch.cat([x0, probes, x0]))
        torch.testing.assert_close(y[:1], model(x0), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(y[1:3], op(probes), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(y[3:], model(x0), rtol=1e-11, atol=1e-11)

    def test_probes_never_alter_the_output(self, kind):
        model, x0 = build(kind), example(kind)
        with ls.patch(model) as scoped:
            plain = scoped(torch.cat([x0, x0]))[:1]
            assert torch.equal(scoped(torch.cat([x0, torch.full_like(x0, 1e30)]))[:1], plain)
            assert torch.equal(scoped(torch.cat([x0, torch.full_like(x0, torch.nan)]))[:1], plain)

    def test_several_references(self, kind):
        model = build(kind)
        x0 = torch.cat([example(kind, s) for s in (0, 1)])
        x1 = torch.cat([example(kind, s) for s in range(4)])
        with ls.patch(model, references=2) as scoped:
            y = scoped(torch.cat([x0, x1]))
        with ls.patch(model) as scoped:
            for j in range(4):
                alone = scoped(torch.cat([x0[j % 2 : j % 2 + 1], x1[j : j + 1]]))
                torch.testing.assert_close(y[2 + j], alone[1], rtol=1e-11, atol=1e-12)

    def test_equation_6(self, kind):
        model, x0 = build(kind), example(kind)
        op = ls.LinearInterpreter(model, x0)
        x1 = torch.zeros_like(x0).requires_grad_()
        u = torch.randn_like(op.output)
        with ls.patch(model) as scoped:
            (back,) = torch.autograd.grad(scoped(torch.cat([x0, x1]))[1:], x1, u)
        torch.testing.assert_close(back, op.transpose(u), rtol=1e-11, atol=1e-12)


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


def test_the_model_is_as_before_also_after_an_exception():
    model, x0 = build(Spellings), example(Spellings)
    y0 = model(x0)
    forwards = {n: m.forward for n, m in model.named_modules()}
    with pytest.raises(RuntimeError, match="on purpose"), ls.patch(model) as scoped:
        scoped(torch.cat([x0, x0]))
        raise RuntimeError("on purpose")
    with pytest.raises(ls.UnscopedOperation), ls.patch(Bessel()) as scoped:
        scoped(torch.ones(2, 3))
    assert all(m.forward == forwards[n] for n, m in model.named_modules())
    assert torch.equal(model(x0), y0)
    # Outside of a scoped call nothing is caught: a batch is a batch again.
    with ls.patch(model):
        assert torch.equal(F.relu(torch.tensor([[1.0], [-1.0]])), torch.tensor([[1.0], [0.0]]))
        assert torch.equal(model(x0), y0)


def test_gradients_reach_the_weights():
    """F and r in a loss: their derivative in a weight against a difference quotient."""
    model, x0 = build(Spellings), example(Spellings)
    weight = model.first.weight
    zero = torch.zeros_like(x0)

    def loss():
        with ls.patch(model) as scoped:
            return scoped(torch.cat([x0, zero]))[1].square().sum()

    (grad,) = torch.autograd.grad(loss(), weight)
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)).double()
    h = 1e-6
    with torch.no_grad():
        weight += h * direction
        up = loss()
        weight -= 2 * h * direction
        down = loss()
    torch.testing.assert_close((grad * direction).sum(), (up - down) / (2 * h), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("x", "references"), [((3, 3, 11, 10), 2), ((0, 3, 11, 10), 1), ((1, 3, 11, 10), 2)]
)
def test_wrong_batches(x, references):
    with (
        pytest.raises(ValueError, match="doubled batch wants"),
        ls.patch(build(Spellings), references) as scoped,
    ):
        scoped(torch.zeros(x, dtype=torch.float64))


def test_training_mode_and_no_references_are_refused():
    with pytest.raises(ValueError, match=r"BatchNorm2d 'norm'"), ls.patch(build(Spellings).train()):
        pass
    with pytest.raises(ValueError, match="1 reference or more"), ls.patch(nn.ReLU(), 0):
        pass
    assert INPUTS[Spellings] == (1, 3, 11, 10)
