"""The ledger: exact, complete, and what one would sum by hand."""

import pytest
import torch
import torch.nn.functional as F
from networks import PIECEWISE, Gated, build, example
from place import here
from torch import nn

import linscope_cuda as ls

NETWORKS = [*PIECEWISE, Gated]


class Written(nn.Module):
    """Constants that enter by being written over, written into, or left standing."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, bias=False)

    def forward(self, x):
        h = self.conv(x)
        h[:, 0].add_(0.5)
        h[:, 1, :2] = 2.0
        h.sub_(0.25)[:, 2].clamp_(-0.1, 0.1)
        canvas = torch.full((len(x), 4, *h.shape[2:]), 3.0, dtype=x.dtype, device=x.device)
        canvas[:, 1:] = h
        canvas += h.mean((1, 2, 3), keepdim=True)
        return F.pad(canvas * 2, (1, 0), value=-1.0)


class Attention(nn.Module):
    """Samples that lie in the second dimension, and in windows of the first."""

    def __init__(self):
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.last = nn.Linear(8, 3)
        nn.init.normal_(self.attend.in_proj_bias)
        nn.init.normal_(self.attend.out_proj.bias)
        nn.init.normal_(self.norm.bias)

    def forward(self, x):
        h = self.norm(x + self.attend(x, x, x, need_weights=False)[0])
        windows = h.reshape(len(x) * 2, 3, 8)
        windows = torch.relu(self.last(windows)) + 0.25
        return windows.reshape(len(x), 6, 3).mean(1) + self.last(h.transpose(0, 1)[0])


class Spectral(nn.Module):
    """Complex numbers on the way."""

    def forward(self, x):
        return torch.fft.ifft2(torch.fft.fft2(x + 0.5) + (1 + 2j)).real.relu()


class Mixing(nn.Module):
    """Subtracts the batch's mean: right for one sample alone."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        h = self.first(x)
        return self.last(torch.relu(h - 0.5 * h.sum(0, keepdim=True) + 0.1))


SHAPES = {Written: (1, 2, 7, 6), Attention: (1, 6, 8), Spectral: (1, 2, 6, 5), Mixing: (1, 6)}


def interpreter(kind, dtype=torch.float64, **options):
    if kind in SHAPES:
        generator = torch.Generator().manual_seed(1)
        x0 = here(torch.randn(SHAPES[kind], generator=generator, dtype=torch.float64))
    else:
        x0 = example(kind)
    return ls.LinearInterpreter(build(kind, dtype=dtype), x0.to(dtype), **options)


def spread(op, count=9):
    """Flat positions all over the output."""
    return torch.linspace(0, op.shape[0] - 1, min(count, op.shape[0])).long().tolist()


@pytest.mark.parametrize("storage", ["tape", "none"])
@pytest.mark.parametrize(
    ("dtype", "digits"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
@pytest.mark.parametrize("kind", [*NETWORKS, Written, Attention, Spectral])
def test_the_ledger_sums_to_the_output(kind, dtype, digits, storage, device):
    op = interpreter(kind, dtype, storage=storage)
    outputs = spread(op)
    found = ls.ledger(op, outputs)
    y, r, Fx0 = (t.flatten()[outputs].double() for t in (op.output, op.residual, op.filter(op.x0)))
    scale = found.values.abs().sum(0).max() + y.abs().max()
    for got, want in ((found.total, y), (found.residual, r), (found.input, Fx0)):
        assert got.shape == (len(outputs),) and got.dtype == torch.float64
        assert (got - want).abs().max() < digits * scale
    assert found.values.shape == (len(found.names), len(outputs))
    assert len(set(found.names)) == len(found.names)


@pytest.mark.parametrize("policy", ["paper", "centered", "taylor"])
@pytest.mark.parametrize("name", ["cyclegan-random", "edsr_baseline_x2-random", "pixelshuffle4_x3"])
def test_zoo_networks_are_summed_exactly(name, policy):
    network = ls.zoo.load(name)
    x0 = network.preprocess(ls.zoo.photo("cat").image.resize((16, 16))).double()
    op = ls.LinearInterpreter(network.model.double(), x0, policy)
    outputs = spread(op, 3)
    found = ls.ledger(op, outputs)
    scale = found.values.abs().sum(0) + found.input.abs()
    assert ((found.total - op.output.flatten()[outputs]).abs() < 1e-12 * scale).all()


def chain():
    """Two hidden layers, with the matrices and vectors of their frozen system."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Linear(6, 5), nn.LeakyReLU(0.25), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)
    ).double()
    x0 = torch.randn(1, 6, dtype=torch.float64)
    (W1, b1), (W2, b2), (W3, b3) = (
        (layer.weight.detach(), layer.bias.detach()) for layer in (model[0], model[2], model[4])
    )
    h1 = W1 @ x0[0] + b1
    A1 = torch.where(h1 > 0, 1.0, 0.25).double().diag()
    h2 = W2 @ A1 @ h1 + b2
    A2 = (h2 > 0).double().diag()
    assert 0 < A2.trace() < 4
    return model, x0, (W1, b1, A1), (W2, b2, A2), (W3, b3)


def test_a_sequential_network_is_what_one_sums_by_hand():
    model, x0, (W1, b1, A1), (W2, b2, A2), (W3, b3) = chain()
    found = ls.ledger(ls.LinearInterpreter(model, x0), range(3))
    assert found.names == [f"torch.nn.functional.linear in {i}" for i in (0, 2, 4)]
    want = torch.stack([W3 @ A2 @ W2 @ A1 @ b1, W3 @ A2 @ b2, b3])
    torch.testing.assert_close(found.values, want, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found.input, W3 @ A2 @ W2 @ A1 @ W1 @ x0[0], rtol=1e-12, atol=1e-14)


def test_batch_norm_counts_its_effective_shift():
    norm = nn.BatchNorm2d(2).double().eval()
    norm.running_mean = torch.tensor([0.5, -1.0], dtype=torch.float64)
    norm.running_var = torch.tensor([4.0, 0.25], dtype=torch.float64)
    norm.weight.data.copy_(torch.tensor([3.0, 1.0]))
    norm.bias.data.copy_(torch.tensor([0.1, 0.2]))
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(8, 2, bias=False).double())
    weight = model[2].weight.detach()
    x0 = torch.randn(1, 2, 2, 2, dtype=torch.float64)
    found = ls.ledger(ls.LinearInterpreter(model, x0), [0, 1])
    deviation = (norm.running_var + norm.eps).sqrt()
    shift = (norm.bias - norm.weight * norm.running_mean / deviation).detach()
    want = weight @ shift.repeat_interleave(4)
    assert found.names == ["torch.nn.functional.batch_norm in 0"]
    torch.testing.assert_close(found.values[0], want, rtol=1e-12, atol=1e-14)


def test_padding_clamps_and_sigmoids_have_entries():
    class Constants(nn.Module):
        def forward(self, x):
            return torch.sigmoid(F.hardtanh(F.pad(x, (1, 1), value=0.3), -0.5, 0.5))

    op = ls.LinearInterpreter(Constants(), torch.tensor([[0.25, 3.0]], dtype=torch.float64))
    found = ls.ledger(op, range(4))
    assert [name.split(" in ")[0] for name in found.names] == [
        f"torch.{name}" for name in ("nn.functional.pad", "nn.functional.hardtanh", "sigmoid")
    ]
    inner = torch.tensor([0.3, 0.25, 0.5, 0.3], dtype=torch.float64)
    gates = (torch.sigmoid(inner) - 0.5) / inner
    want = torch.tensor([[0.3, 0, 0, 0.3], [0, 0, 0.5, 0]], dtype=torch.float64) * gates
    torch.testing.assert_close(found.values[:2], want, rtol=1e-12, atol=1e-14)
    assert (found.values[2] == 0.5).all()


def test_a_module_that_is_called_twice_is_one_entry():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(self.layer(x))

    torch.manual_seed(0)
    model = Twice().double()
    W, b = model.layer.weight.detach(), model.layer.bias.detach()
    op = ls.LinearInterpreter(model, torch.randn(1, 3, dtype=torch.float64))
    found = ls.ledger(op, range(3))
    assert found.names == ["torch.nn.functional.linear in layer"]
    torch.testing.assert_close(found.values[0], W @ b + b)


@pytest.mark.parametrize("kind", [*NETWORKS, Written, Attention])
def test_outputs_in_one_batch_are_as_alone(kind):
    op = interpreter(kind)
    outputs = spread(op, 5)
    together = ls.ledger(op, outputs)
    op.max_batch = 2  # three batches, the last one not full
    pieces = ls.ledger(op, outputs)
    alone = torch.cat([ls.ledger(op, [k]).values for k in outputs], 1)
    torch.testing.assert_close(together.values, alone, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(pieces.values, alone, rtol=1e-10, atol=1e-12)


def test_a_network_that_mixes_samples_is_summed_as_that_of_one():
    op = interpreter(Mixing)
    found = ls.ledger(op, range(3))
    torch.testing.assert_close(found.total, op.output[0], rtol=1e-12, atol=1e-14)


def test_a_network_without_offsets_has_an_empty_ledger():
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.ReLU()).double()
    op = ls.LinearInterpreter(model, torch.ones(1, 3, dtype=torch.float64))
    found = ls.ledger(op, [0, 1])
    assert found.names == [] and found.values.shape == (0, 2)
    torch.testing.assert_close(found.total, op.output[0])


def test_the_model_and_its_interpreter_are_as_before():
    op = interpreter(PIECEWISE[0])
    before = {name: t.clone() for name, t in op.model.state_dict().items()}
    y, rows = op.output.clone(), op.rows([0, 3])
    ls.ledger(op, [(0,), 3])
    for name, t in op.model.state_dict().items():
        assert torch.equal(t, before[name])
    assert all(p.grad is None for p in op.model.parameters())
    assert torch.equal(op.output, y) and torch.equal(op.rows([0, 3]), rows)


def test_no_outputs():
    found = ls.ledger(interpreter(Gated), [])
    assert found.values.shape == (3, 0) and found.total.shape == (0,)


@pytest.mark.parametrize(
    ("outputs", "error"), [([4], ValueError), ([-5], ValueError), (3, TypeError), ((0,), TypeError)]
)
def test_wrong_outputs_are_refused(outputs, error):
    with pytest.raises(error, match="ledger"):
        ls.ledger(interpreter(Gated), outputs)


def test_another_operator_is_refused():
    matrix = ls.MatrixOperator(torch.eye(3))
    with pytest.raises(TypeError, match="ledger wants a LinearInterpreter"):
        ls.ledger(matrix, [0])  # pyright: ignore


@pytest.mark.network
@pytest.mark.parametrize(
    ("dtype", "digits"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
@pytest.mark.parametrize("name", [n for n in ls.zoo.names() if not n.endswith("-random")])
def test_trained_networks_are_summed_exactly(name, dtype, digits):
    network = ls.zoo.load(name)
    image = ls.zoo.photo("cat").image.resize((48, 48))
    x0 = network.preprocess(image).to(dtype)
    op = ls.LinearInterpreter(network.model.to(dtype), x0)
    outputs = [int(op.output.argmax()), *spread(op, 2)]
    found = ls.ledger(op, outputs)
    scale = (found.values.abs().sum(0) + found.input.abs()).max()
    assert ((found.total - op.output.flatten()[outputs]).abs() < digits * scale).all()
