"""Networks as people have them: wrapped, compiled, hooked, shared, with more inputs and outputs."""

import threading
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from networks import Image, Spellings, build, example
from torch import nn

import linscope_cuda as ls


def relative(got, want):
    return ((got - want).norm() / want.norm()).item()


def dense(model, x0, **options):
    return ls.LinearInterpreter(model, x0, **options).todense()


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.compile,
        lambda m: nn.DataParallel(torch.compile(m)),
        lambda m: nn.Sequential(torch.compile(m)),
    ],
    ids=["DataParallel", "compiled", "both", "a compiled part"],
)
def test_wrapped_models(wrap):
    model, x0 = build(Image), example(Image)
    assert relative(dense(wrap(model), x0), dense(model, x0)) < 1e-14
    with ls.patch(wrap(model)) as scoped, torch.no_grad():
        assert relative(scoped(torch.cat([x0, x0]))[1:], model(x0)) < 1e-12


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_scripted_models_are_refused_by_name():
    scripted = torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.ReLU()).eval())
    with pytest.raises(TypeError, match=r"the model is scripted or traced"):
        ls.LinearInterpreter(scripted, torch.ones(1, 3))  # pyright: ignore
    part = nn.Sequential(nn.Linear(3, 3), nn.Sequential(scripted))  # pyright: ignore
    with pytest.raises(TypeError, match=r"module 1\.0 is scripted or traced"):
        ls.LinearInterpreter(part.eval(), torch.ones(1, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("storage", ["tape", "none"])
def test_half_precision(dtype, storage):
    model, x0 = build(Image, dtype=dtype), example(Image).to(dtype)
    op = ls.LinearInterpreter(model, x0, storage=storage)
    assert op.output.dtype == op.filter(x0).dtype == op.transpose(op.output).dtype == dtype
    want = dense(build(Image, dtype=dtype).double(), x0.double())
    assert relative(op.todense().double(), want) < 20 * torch.finfo(dtype).eps
    assert op.certify().ok


def test_autocast_around_an_interpreter_is_left_out():
    model, x0 = build(Image, dtype=torch.float32), example(Image).float()
    want = dense(model, x0)
    with torch.autocast("cpu", torch.bfloat16):
        op = ls.LinearInterpreter(model, x0)
        assert op.output.dtype == torch.float32 and torch.equal(op.todense(), want)
        assert torch.equal(op.T.todense(), ls.LinearInterpreter(model, x0).T.todense())


def test_autocast_inside_a_network_is_kept():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 20), nn.Linear(20, 4)

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                h = F.relu(self.a(x))
            return self.b(h.float())

    torch.manual_seed(0)
    model, x0 = Mixed().eval(), torch.randn(1, 6)
    op = ls.LinearInterpreter(model, x0, check=False)
    assert torch.equal(op.output, model(x0))
    exact = (
        model.b.weight.double()
        @ torch.diag((model.a(x0)[0] > 0).double())
        @ model.a.weight.double()
    )
    assert relative(op.todense().double(), exact) < 0.02
    assert relative(op.T.todense().double(), exact.T) < 0.02


def test_hooks_run_and_shared_modules_count_twice():
    seen = []
    shared = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.LeakyReLU(0.3))
    model = nn.Sequential(shared, nn.Sequential(shared), nn.Conv2d(2, 1, 1)).double().eval()
    shared.register_forward_hook(lambda module, args, y: seen.append(1) or 2 * y)
    x0 = torch.randn(1, 2, 5, 6, dtype=torch.float64)
    op = ls.LinearInterpreter(model, x0)
    assert len(op.tape) == 2 and seen
    J = torch.autograd.functional.jacobian(model, x0).reshape(op.shape)  # pyright: ignore
    assert relative(op.todense(), J) < 1e-13


@pytest.mark.parametrize("wants", [True, False])
def test_weights_with_and_without_gradients(wants):
    model, x0 = build(Spellings).requires_grad_(wants), example(Spellings)
    op = ls.LinearInterpreter(model, x0)
    assert op.certify().ok and not op.filter(x0).requires_grad
    with torch.no_grad():
        assert torch.equal(ls.LinearInterpreter(model, x0).T.todense(), op.T.todense())
    with torch.inference_mode():
        y = op.filter(x0)
    assert torch.equal(y, op.filter(x0))


class Answer(NamedTuple):
    image: torch.Tensor
    scores: torch.Tensor


class Many(nn.Module):
    """Two inputs, and as many ways to answer as there are."""

    def __init__(self, form):
        super().__init__()
        torch.manual_seed(0)
        self.form = form
        self.body, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5)

    def forward(self, x, extra=None, *, scale=1.0):
        h = F.relu(self.body(torch.cat([x, extra], 1))) * scale
        return self.form(h, self.head(h.mean((2, 3))))


FORMS = {
    "a tuple": (lambda a, b: (a, b), 1),
    "a dict": (lambda a, b: {"image": a, "scores": b}, "scores"),
    "a named tuple": (Answer, "scores"),
    "a function": (lambda a, b: [{"x": b}], lambda y: y[0]["x"]),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("storage", ["tape", "none"])
def test_several_inputs_and_outputs(name, storage):
    form, output = FORMS[name]
    model = Many(form).double().eval()
    x0, extra = torch.randn(1, 2, 5, 6).double(), torch.randn(1, 1, 5, 6).double()
    with pytest.raises(TypeError, match=r"returned \w+; choose one with output="):
        ls.LinearInterpreter(model, x0, kwargs={"extra": extra, "scale": 2.0})
    op = ls.LinearInterpreter(
        model, x0, storage=storage, output=output, kwargs={"extra": extra, "scale": 2.0}
    )
    plain = Many(lambda a, b: b).double().eval()

    def scores(x):
        return plain(x, extra, scale=2.0)

    J = torch.autograd.functional.jacobian(scores, x0).reshape(op.shape)  # pyright: ignore
    assert relative(op.todense(), J) < 1e-12
    assert relative(op.T.todense(), J.T) < 1e-12
    assert op.certify().ok


def test_patch_hands_further_arguments_on():
    model = Many(lambda a, b: b).double().eval()
    x0, extra = torch.randn(1, 2, 5, 6).double(), torch.randn(1, 1, 5, 6).double()
    with ls.patch(model) as scoped, torch.no_grad():
        y = scoped(torch.cat([x0, x0]), extra.expand(2, -1, -1, -1), scale=2.0)
    assert relative(y[1:], model(x0, extra, scale=2.0)) < 1e-13


def test_threads():
    model, x0 = build(Image), example(Image)
    ops = [ls.LinearInterpreter(model, example(Image, seed)) for seed in range(4)]
    want = [(op.todense(), op.T.todense()) for op in ops]
    got: list = [None] * 4

    def work(i):
        op = ls.LinearInterpreter(model, example(Image, i))
        got[i] = op.todense(), op.T.todense()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (F_, Ft), pair in zip(want, got, strict=True):
        assert torch.equal(pair[0], F_) and torch.equal(pair[1], Ft)
    assert x0.shape == (1, 2, 9, 10)
