"""Several inputs probed together, inputs by name, and those that a module makes of numbers."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linscope_cuda as ls

STORAGES = ["tape", "none"]


def rand(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class Two(nn.Module):
    """A picture and a vector that modulates it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 4, 3, padding=1).double()
        self.scale = nn.Linear(5, 4).double()

    def forward(self, image, code=None):
        y = F.relu(self.conv(image)) * torch.sigmoid(self.scale(code))[..., None, None]
        return y + image.sum(1, keepdim=True)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, 6).double()
        self.layer = nn.TransformerEncoderLayer(6, 2, 12, 0.0, batch_first=True).double()
        self.head = nn.Linear(6, 3).double()

    def forward(self, ids, positions=None):
        x = self.embed(ids)
        x = x if positions is None else x + positions
        return self.head(self.layer(x).mean(1))


IMAGE, CODE = rand(1, 2, 4, 5), rand(1, 5, seed=1)


def jacobians(function, *parts):
    found = torch.autograd.functional.jacobian(function, parts)
    return torch.cat([J.flatten(0, J.dim() - p.dim() - 1).reshape(-1, p.numel())
                      for J, p in zip(found, parts, strict=True)], 1)  # fmt: skip


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("given", [(IMAGE, CODE), {"image": IMAGE, "code": CODE}])
def test_several_inputs_are_probed_together(storage, given):
    model = Two().eval()
    op = ls.LinearInterpreter(model, given, "taylor", storage)
    assert op.input_shape == (45,)
    assert torch.equal(op.output, model(IMAGE, CODE))
    J = jacobians(model, IMAGE, CODE)
    torch.testing.assert_close(op.todense(), J)
    back = op.inputs.split(op.transpose(torch.ones_like(op.output)))
    parts = list(back.values()) if isinstance(given, dict) else list(back)
    assert [p.shape for p in parts] == [IMAGE.shape, CODE.shape]
    assert isinstance(back, dict) == isinstance(given, dict)
    torch.testing.assert_close(op.inputs.join(back), op.transpose(torch.ones_like(op.output)))


@pytest.mark.parametrize("storage", STORAGES)
def test_one_input_by_name_keeps_its_shape(storage):
    model = Two().eval()
    kwargs = {"code": CODE}
    op = ls.LinearInterpreter(model, {"image": IMAGE}, storage=storage, kwargs=kwargs)
    other = ls.LinearInterpreter(model, IMAGE, storage=storage, kwargs=kwargs)
    assert op.input_shape == (2, 4, 5)
    assert torch.equal(op.todense(), other.todense())


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("by_name", [False, True])
def test_what_a_module_makes_of_whole_numbers(storage, by_name):
    model, ids = Words().eval(), torch.tensor([[3, 1, 4, 1]])
    positions = rand(1, 4, 6, seed=2)
    x0 = {"ids": ids} if by_name else ids
    op = ls.LinearInterpreter(
        model, x0, "taylor", storage, at="embed", kwargs={"positions": positions}
    )
    assert op.input_shape == (4, 6)
    assert torch.equal(op.x0, model.embed(ids))
    torch.testing.assert_close(op.output, model(ids, positions), rtol=1e-13, atol=0)

    def rest(x):
        return model.head(model.layer(x + positions).mean(1))

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        torch.testing.assert_close(op.todense(), jacobians(rest, op.x0), atol=1e-12, rtol=1e-9)
    assert not model.embed._forward_hooks
    with torch.no_grad():
        model.embed.weight[0] += 1
    with pytest.raises(ls.StaleTape, match=r"embed\.weight"):
        op.filter(op.x0)


CASES = {
    "a pair": (Two, (IMAGE, CODE), None),
    "by name": (Two, {"image": IMAGE, "code": CODE}, None),
    "words": (Words, torch.tensor([[3, 1, 4, 1]]), "embed"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_tape_from_a_file_wants_the_same_inputs(name, tmp_path):
    kind, x0, at = CASES[name]
    model = kind().eval()
    op = ls.LinearInterpreter(model, x0, at=at)
    op.tape.save(tmp_path / "a.tape")
    again = ls.LinearInterpreter.from_tape(model, tmp_path / "a.tape", x0=x0, at=at)
    assert again.inputs.kind == op.inputs.kind
    assert torch.equal(again.filter(op.x0), op.filter(op.x0))
    assert torch.equal(again.rows([1]), op.rows([1]))
    assert again.certify().ok
    with pytest.raises(ValueError, match="x0= and at= are wanted"):
        ls.LinearInterpreter.from_tape(model, tmp_path / "a.tape")
    other = (IMAGE + 1, CODE) if name == "a pair" else {"image": IMAGE, "code": 2 * CODE}
    other = torch.tensor([[3, 1, 4, 2]]) if at else other
    with pytest.raises(ValueError, match="another x0"):
        ls.LinearInterpreter.from_tape(model, tmp_path / "a.tape", x0=other, at=at)


def test_bad_inputs_are_one_sentence():
    model = Two().eval()
    with pytest.raises(ValueError, match=r"one sample each.*were given \[\(2, 4, 5\), \(1, 5\)\]"):
        ls.LinearInterpreter(model, (IMAGE[0], CODE))
    with pytest.raises(
        TypeError, match=r"one dtype, were given torch.float64 on cpu, torch.float32"
    ):
        ls.LinearInterpreter(model, (IMAGE, CODE.float()))
    op = ls.LinearInterpreter(model, (IMAGE, CODE))
    with pytest.raises(ValueError, match=r"samples of \[\(2, 4, 5\), \(5,\)\], were given"):
        op.inputs.join((CODE, IMAGE))
    words, ids = Words().eval(), torch.tensor([[3, 1]])
    with pytest.raises(TypeError, match="at= names the module"):
        ls.LinearInterpreter(words, ids)
    with pytest.raises(ValueError, match="was given 'embedding'; there are embed, layer"):
        ls.LinearInterpreter(words, ids, at="embedding")
    twice = nn.Sequential(words.embed, nn.Flatten(), nn.Linear(12, 3).double()).eval()
    again = nn.Sequential(twice[2], nn.ReLU(), nn.Linear(3, 12).double())
    again.append(again[0])
    with pytest.raises(ValueError, match="'0' is called 2 times"):
        ls.LinearInterpreter(again.eval(), rand(1, 12), at="0")


def test_what_another_thread_runs_meanwhile_is_its_own():
    model, ids = Words().eval(), torch.tensor([[3, 1, 4, 1]])
    op = ls.LinearInterpreter(model, ids, at="embed")
    want, got, started = model(ids), [], []

    def elsewhere(*_):
        if started:
            return
        started.append(True)
        thread = threading.Thread(target=lambda: got.append(model(ids)))
        thread.start()
        thread.join()

    handle = model.embed.register_forward_pre_hook(elsewhere)
    op.reenact(2 * op.x0)
    handle.remove()
    torch.testing.assert_close(got[0], want)
