"""F and r in a loss: gradients for a network's weights, through its decisions as well."""

import pytest
import torch
import torch.nn.functional as F
from networks import Gated, Image, Line, Spellings, build, example
from torch import nn

import linscope_cuda as ls


class Normed(nn.Module):
    """Everything that decides smoothly: norms, gates, attention."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.instance, self.group = nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4)
        self.layer, self.last = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x):
        h = F.softplus(self.instance(F.leaky_relu(self.conv(x), 0.2)))
        h = torch.tanh(self.group(h)).flatten(2).transpose(1, 2)
        h = F.scaled_dot_product_attention(h, h, self.layer(h))
        return self.last(F.silu(h.mean(1)))


def small(kind):
    if kind is Normed:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = Normed().double().eval()
            for p in model.parameters():
                nn.init.normal_(p, std=0.5)
        x0 = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(1)).double()
        return model, x0
    return build(kind), example(kind)


def slope(function, weight, direction):
    """The derivative of function() as the weight moves, by central differences."""
    h = 1e-6
    with torch.no_grad():
        weight += h * direction
        up = function()
        weight -= 2 * h * direction
        down = function()
        weight += h * direction
    return (up - down) / (2 * h)


@pytest.mark.parametrize("kind", [Spellings, Image, Line, Gated, Normed])
@pytest.mark.parametrize("product", ["filter", "residual", "transpose", "output"])
def test_gradients_of_the_weights(kind, product):
    model, x0 = small(kind)
    plain = ls.LinearInterpreter(model, x0)
    generator = torch.Generator().manual_seed(3)
    v = torch.randn(2, *plain.input_shape, generator=generator, dtype=torch.float64)
    u = torch.randn(2, *plain.output_shape, generator=generator, dtype=torch.float64)
    w = torch.randn(plain.output_shape, generator=generator, dtype=torch.float64)

    def loss(differentiable):
        op = ls.LinearInterpreter(model, x0, differentiable=differentiable, check=False)
        return {
            "filter": lambda: (op.filter(v) * u).sum(),
            "residual": lambda: (op.residual * w).sum(),
            "transpose": lambda: (op.transpose(u) * v).sum(),
            "output": lambda: (op.output * w).sum(),
        }[product]()

    weights = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss(True), weights, allow_unused=True)
    assert any(g is not None and g.abs().max() > 0 for g in grads)
    for weight, grad in zip(weights, grads, strict=True):
        direction = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        want = slope(lambda: loss(False), weight, direction).item()
        got = 0.0 if grad is None else (grad * direction).sum().item()
        assert got == pytest.approx(want, rel=1e-5, abs=1e-7)


def test_gradcheck():
    x0 = torch.randn(1, 3, dtype=torch.float64)
    v = torch.randn(2, 3, dtype=torch.float64)

    class Net(nn.Module):
        def __init__(self, weight, bias):
            super().__init__()
            self.weight, self.bias = weight, bias

        def forward(self, x):
            return torch.sigmoid(F.linear(x, self.weight, self.bias))

    def both(weight, bias):
        op = ls.LinearInterpreter(Net(weight, bias), x0, differentiable=True, check=False)
        return op.filter(v), op.residual

    weight = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(both, (weight, bias))
    assert torch.autograd.gradgradcheck(both, (weight, bias))


def test_a_network_is_trained_to_have_a_small_residual():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4)).double()
    inputs = torch.randn(8, 4, dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    def losses():
        ops = [
            ls.LinearInterpreter(model, x[None], differentiable=True, check=False) for x in inputs
        ]
        fit = sum((op.output - x).square().mean() for op, x in zip(ops, inputs, strict=True)) / 8
        residual = sum(op.residual.square().mean() for op in ops) / 8
        return fit, residual

    before = [loss.item() for loss in losses()]
    for _ in range(60):
        fit, residual = losses()
        optimizer.zero_grad()
        (fit + residual).backward()
        optimizer.step()
    after = [loss.item() for loss in losses()]
    assert after[0] < before[0] / 10 and after[1] < before[1] / 10


def test_without_the_wish_nothing_leads_to_the_weights():
    model, x0 = small(Image)
    op = ls.LinearInterpreter(model, x0)
    x = x0.clone().requires_grad_()
    y = op.filter(x)
    y.sum().backward()
    assert x.grad is not None and all(p.grad is None for p in model.parameters())
    assert not op.residual.requires_grad and not op.output.requires_grad
