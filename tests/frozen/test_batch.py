"""A batch of x0 as one input: F against those of its samples, one by one."""

import pytest
import torch
import torch.nn.functional as F
from networks import PIECEWISE, Gated, Image, Line, build, example
from place import here
from torch import nn

import linscope_cuda as ls

pytestmark = pytest.mark.usefixtures("device")

STORAGES = ["tape", "none"]
B = 3


def batch(kind):
    return torch.cat([example(kind, seed) for seed in range(B)])


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return here(torch.randn(*shape, generator=generator, dtype=torch.float64))


def relative(got, want):
    return ((got - want).norm() / want.norm()).item()


@pytest.mark.parametrize("policy", ["paper", "taylor"])
@pytest.mark.parametrize("kind", [*PIECEWISE, Gated])
@pytest.mark.parametrize("storage", STORAGES)
def test_is_that_of_each_sample(kind, policy, storage):
    model, x0 = build(kind), batch(kind)
    op = ls.LinearInterpreter(model, x0, policy, storage)
    singles = [ls.LinearInterpreter(model, one, policy, storage) for one in x0.split(1)]
    assert torch.equal(op.x0, x0[None])
    assert relative(op.output, model(x0)[None]) < 1e-14  # a gate's exp may round otherwise
    assert op.input_shape == x0.shape and op.output_shape == op.output.shape[1:]
    assert relative(op.residual, torch.stack([s.residual for s in singles], 1)) < 1e-12

    x, u = randn(2, *op.input_shape), randn(2, *op.output_shape, seed=1)
    want = torch.stack([s.filter(x[:, i]) for i, s in enumerate(singles)], 1)
    assert relative(op.filter(x), want) < 1e-12
    assert relative(op(x), want + op.residual) < 1e-12
    want = torch.stack([s.transpose(u[:, i]) for i, s in enumerate(singles)], 1)
    assert relative(op.transpose(u), want) < 1e-12

    size, at = singles[0].shape[0], singles[0].shape[0] // 2
    rows = op.rows([i * size + at for i in range(B)])
    blocks = torch.stack([rows[i, i] for i in range(B)])
    assert relative(blocks, torch.cat([s.rows([at]) for s in singles])) < 1e-12
    assert rows.count_nonzero() == blocks.count_nonzero()  # nothing beside the blocks
    assert op.certify().ok


def test_one_sample_is_as_it_was():
    model, x0 = build(Image), example(Image)
    op = ls.LinearInterpreter(model, x0)
    assert (op.input_shape, op.output_shape) == (x0.shape[1:], model(x0).shape[1:])


def test_singular_values_are_those_of_the_blocks():
    model, x0 = build(Image), batch(Image)
    values = [torch.linalg.svdvals(ls.LinearInterpreter(model, x).todense()) for x in x0.split(1)]
    found = ls.svd(ls.LinearInterpreter(model, x0), k=4, tol=1e-10)
    torch.testing.assert_close(found.S, torch.cat(values).sort(descending=True).values[:4])


def test_gradients_for_the_weights_are_the_samples_sum():
    x0, found = batch(Line), []
    for parts in ([x0], x0.split(1)):
        model = build(Line)
        for part in parts:
            op = ls.LinearInterpreter(model, part, differentiable=True)
            x = randn(1, *x0.shape[1:])
            filtered = op.filter(x if len(part) == 1 else x.expand(1, *x0.shape))
            loss = op.output.square().sum() + op.residual.square().sum() + filtered.square().sum()
            loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*found)


class Conditioned(nn.Module):
    """Several outputs, and what else a call is given: for each sample, or for all."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = here(nn.Linear(4, 5).double())

    def forward(self, x, gain, shift):
        h = F.relu(self.layer(x)) * gain
        return {"h": h, "y": torch.cat([h, shift], 1)}


@pytest.mark.parametrize("storage", STORAGES)
def test_further_arguments_are_for_all_samples_or_one_for_each(storage):
    model, x0 = Conditioned().eval(), randn(B, 4)
    gain, shift = randn(B, 1, seed=1), randn(1, 2, seed=2)

    def frozen(x, gain):
        kwargs = {"gain": gain, "shift": shift}
        return ls.LinearInterpreter(model, x, storage=storage, output="y", kwargs=kwargs)

    op = frozen(x0, gain)
    singles = [frozen(x, g) for x, g in zip(x0.split(1), gain.split(1), strict=True)]
    x = randn(4, B, 4, seed=3)
    want = torch.stack([s.filter(x[:, i]) for i, s in enumerate(singles)], 1)
    assert relative(op.filter(x), want) < 1e-12
    assert relative(op.residual, torch.stack([s.residual for s in singles], 1)) < 1e-12


def test_in_files(tmp_path):
    model, x0 = build(Image), batch(Image)
    op = ls.LinearInterpreter(model, x0)
    op.tape.save(tmp_path / "tape")
    op.save(tmp_path / "program")
    again = [
        ls.LinearInterpreter.from_tape(model, tmp_path / "tape"),
        ls.LinearInterpreter(model, x0, storage=tmp_path / "folder"),
        ls.load(tmp_path / "program", op.device),
    ]
    x, u = randn(2, *op.input_shape), randn(2, *op.output_shape)
    for other in again:
        assert torch.equal(other.x0, op.x0) and torch.equal(other.residual, op.residual)
        assert torch.equal(other.filter(x), op.filter(x))
        assert torch.equal(other.transpose(u), op.transpose(u))
        assert other.certify().ok
    again[0].tape.save(tmp_path / "copy")
    assert ls.LinearInterpreter.from_tape(model, tmp_path / "copy").input_shape == op.input_shape


MIXING = {
    "the mean leaves": (lambda h: h - h.mean(0), (4, 6), "mixes the samples"),
    "neighbours": (lambda h: h[::2] - h[1::2], (2, 6), None),
    "the largest": (lambda h: h.amax(0, keepdim=True), (1, 6), "among the samples of a batch"),
    "a number": (lambda h: h.sum(), (), "written for one sample"),
}


class Mixing(nn.Module):
    def __init__(self, mix):
        super().__init__()
        self.mix = mix

    def forward(self, x):
        return self.mix(F.relu(x))


@pytest.mark.parametrize("mix, shape, refused", MIXING.values(), ids=MIXING)
def test_a_network_that_mixes_its_samples_is_frozen_as_it_is_or_refused(mix, shape, refused):
    model, x0 = Mixing(mix).eval(), randn(4, 6)
    J = torch.autograd.functional.jacobian(model, x0).reshape(-1, 24)
    op = ls.LinearInterpreter(model, x0)
    assert op.output_shape == shape
    torch.testing.assert_close(op.todense(), J)
    if refused is None:
        torch.testing.assert_close(ls.LinearInterpreter(model, x0, storage="none").todense(), J)
    else:
        with pytest.raises(ls.UnscopedOperation, match=refused):
            ls.LinearInterpreter(model, x0, storage="none")


def test_as_inputs_and_back():
    op = ls.LinearInterpreter(build(Gated), batch(Gated))
    x = randn(2 * B, 6)
    assert torch.equal(op.inputs.join(x), x.reshape(2, B, 6))
    assert torch.equal(op.inputs.split(op.inputs.join(x)), x)


def test_wrong_uses_are_one_sentence():
    model, x0 = build(Image), batch(Image)
    op = ls.LinearInterpreter(model, x0)
    with pytest.raises(ValueError, match=r"wants shape \(K, 3, 2, 9, 10\), was given \(3, 2, 9"):
        op.filter(x0)
    with pytest.raises(ValueError, match=r"x0 of one sample, which is a batch here, \(3, 2, 9"):
        op.between("head", "pool")
    with pytest.raises(ValueError, match=r"batches of \(3, 2, 9, 10\), were given \(2, 2, 9, 10\)"):
        op.inputs.join(x0[:2])
    with pytest.raises(ValueError, match=r"one input.*or a batch.*was given \(0, 2, 9, 10\)"):
        ls.LinearInterpreter(model, x0[:0])
    with pytest.raises(ValueError, match=r"one input.*or a batch.*was given \(6,\)"):
        ls.LinearInterpreter(build(Gated), batch(Gated)[0])
