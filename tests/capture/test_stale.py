"""Weights that change after the record: no product mixes two networks."""

import pytest
import torch
from networks import Image, build, example
from torch import nn

import linscope_cuda as ls

STORAGES = ["tape", "none"]


def in_place(model):
    with torch.no_grad():
        model.body[1].weight.mul_(1.5)


def optimizer(model):
    model.body[1].weight.grad = torch.ones_like(model.body[1].weight)
    torch.optim.SGD([model.body[1].weight], 0.1).step()


def loaded(model):
    model.load_state_dict(build(Image, seed=3).state_dict())


def replaced(model):
    model.body[1].weight = nn.Parameter(model.body[1].weight.detach() * 2)


def other_memory(model):
    model.body[1].weight.data = model.body[1].weight.detach() * 2


def other_module(model):
    model.body[1] = nn.Conv2d(6, 6, 3, padding=1).double()


CHANGES = {
    in_place: r"body\.1\.weight",
    optimizer: r"body\.1\.weight",
    loaded: r"head\.weight",
    replaced: r"body\.1\.weight",
    other_memory: r"body\.1\.weight",
    other_module: r"body\.1",
}


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("change", CHANGES)
def test_every_product_refuses(change, storage):
    model = build(Image)
    op = ls.LinearInterpreter(model, example(Image), storage=storage)
    u = torch.ones(1, *op.output_shape, dtype=torch.float64)
    op.transpose(u)  # its program is kept from here on
    change(model)
    words = rf"^{CHANGES[change]} has changed since.*make a new LinearInterpreter"
    for product in (
        lambda: op.residual,
        lambda: op.filter(op.x0),
        lambda: op.transpose(u),
        lambda: op(op.x0),
        lambda: op.rows([0]),
        lambda: op.certify(),
        lambda: ls.ledger(op, [0]),
        lambda: ls.svd(op, k=1),
    ):
        with pytest.raises(ls.StaleTape, match=words):
            product()
    assert ls.LinearInterpreter(model, example(Image), storage=storage).certify().ok


@pytest.mark.parametrize("storage", STORAGES)
def test_a_buffer_and_an_argument_count_too(storage):
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.ones(3))

        def forward(self, x, scale):
            return torch.relu(x - self.mean) * scale

    for name in ("mean", "scale"):
        model, scale = Shifted(), torch.full((1, 3), 2.0)
        op = ls.LinearInterpreter(
            model, torch.randn(1, 3), storage=storage, kwargs={"scale": scale}
        )
        (model.mean if name == "mean" else scale).add_(1)
        with pytest.raises(ls.StaleTape, match=f"^{name} has changed"):
            op.filter(op.x0)


def test_what_the_run_itself_changes_is_no_change():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("runs", torch.zeros(()))
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            self.runs += 1
            return torch.relu(self.linear(x))

    model = Counts()
    op = ls.LinearInterpreter(model, torch.randn(1, 3))
    before = model.runs.item()
    assert torch.equal(op.filter(op.x0) + 0, op.filter(op.x0))
    assert model.runs.item() == before  # no product runs the model
    assert op.certify().ok and model.runs.item() > before
    assert op.filter(op.x0).isfinite().all()
    with torch.no_grad():
        model.linear.bias.zero_()
    with pytest.raises(ls.StaleTape, match=r"linear\.bias"):
        op.filter(op.x0)


@pytest.mark.parametrize("storage", STORAGES)
def test_x0_is_the_interpreters_own(storage):
    model, x0 = build(Image), example(Image)
    op = ls.LinearInterpreter(model, x0, storage=storage)
    want, v = op.filter(x0), torch.randn_like(x0)
    kept = x0.clone()
    x0.mul_(-1)
    assert torch.equal(op.x0, kept)
    assert torch.equal(op.filter(kept), want) and op.filter(v).isfinite().all()
    assert op.certify().ok
