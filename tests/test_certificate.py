"""The certificate: green on what is linear, and red, with the call named, on what only seems so."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from networks import PIECEWISE, Gated, Image, Spellings, build, example
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

import linscope_cuda as ls


@pytest.mark.parametrize("storage", ["tape", "none"])
@pytest.mark.parametrize("kind", [*PIECEWISE, Gated])
@pytest.mark.parametrize("policy", ["paper", "taylor"])
def test_green(kind, storage, policy):
    op = ls.LinearInterpreter(build(kind), example(kind), policy, storage)
    certificate = op.certify()
    assert certificate.ok and certificate.blamed is None, str(certificate)
    measured = 7 if policy == "taylor" else 6
    assert len(certificate.errors) == measured and max(certificate.errors.values()) < 1e-12
    assert "ok  F x0 + r = y0" in str(certificate)


class Middle(nn.Module):
    """A residual block around something, between convolutions."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.tail = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 3)
        self.block = Block(function)

    def forward(self, x):
        return self.tail(F.relu(self.block(F.relu(self.head(x)))))


class Block(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.mix = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return x + self.mix(2 * x + self.function(x))


def unseen(function):
    def run(x):
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            return function(x)

    return run


class WrongWayBack(torch.autograd.Function):
    """Linear forward, with a derivative that is not its transpose."""

    @staticmethod
    def forward(ctx, x):
        return 3 * x

    @staticmethod
    def backward(ctx, *grads):
        return grads[0]


class Cube(torch.autograd.Function):
    """A nonlinear unit that is no torch function."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            return x * x * x

    @staticmethod
    def backward(ctx, *grads):
        return 3 * ctx.saved_tensors[0] ** 2 * grads[0]


IMPOSTORS = {
    "a hidden sine": unseen(torch.sin),
    "a hidden linear step": unseen(lambda x: x.roll(1, 2)),
    "a custom Function": Cube.apply,
    "a wrong derivative": WrongWayBack.apply,
}


@pytest.mark.parametrize(
    ("name", "storage"),
    # The doubled batch runs a hidden linear step on its probes: it is right.
    [
        (n, s)
        for n in IMPOSTORS
        for s in ("tape", "none")
        if (n, s) != ("a hidden linear step", "none")
    ],
)
def test_impostors_are_refused_and_the_call_is_named(name, storage):
    model = Middle(IMPOSTORS[name]).double().eval()
    x0 = torch.randn(1, 2, 7, 8, dtype=torch.float64)
    with pytest.raises(ls.CertificateError, match=r"first departs at .*(add|mul|conv2d) in block"):
        ls.LinearInterpreter(model, x0, storage=storage)
    op = ls.LinearInterpreter(model, x0, storage=storage, check=False)
    certificate = op.certify()
    assert not certificate.ok and "block" in (certificate.blamed or "")
    assert "NO" in str(certificate) and "first departs at" in str(certificate)


@torch.jit.script
def scripted(x):
    return torch.relu(x)


def out_of_sight(x):
    with torch._C.DisableTorchFunction():
        return x.exp()


@torch.library.custom_op("linscope_test::cube", mutates_args=())
def cube(x: torch.Tensor) -> torch.Tensor:
    return x**3


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (scripted, "aten.*relu.* in block"),
        (out_of_sight, "aten.exp.* in block"),
        (torch.ops.linscope_test.cube, "cube in block.*register_rule"),
        (lambda x: x + torch.from_numpy(x.numpy()), "numpy in block"),
        (lambda x: x * float(x.sum()), "float.* in block"),
    ],
)
def test_hidden_operations_are_refused_by_name(function, words):
    model = Middle(function).double().eval()
    with pytest.raises(ls.UnscopedOperation, match=words):
        ls.LinearInterpreter(model, torch.randn(1, 2, 7, 8, dtype=torch.float64))


class Mixes(nn.Module):
    """Centres with the mean of the whole batch: right for one sample at a time."""

    def forward(self, x):
        return F.relu(x - x.mean())


class Sequence(nn.Module):
    """The batch second, as in recurrent networks."""

    def forward(self, x):
        return F.layer_norm(F.gelu(x.transpose(0, 1)), x.shape[2:]).transpose(0, 1)


@pytest.mark.parametrize("model", [Mixes(), Sequence()])
def test_networks_that_mix_a_batch_run_one_probe_at_a_time(model):
    x0 = torch.randn(1, 4, 6, dtype=torch.float64)
    with pytest.warns(UserWarning, match="one at a time"):
        op = ls.LinearInterpreter(model, x0)
    assert op.max_batch == 1 and op.certify().ok
    taylor = ls.LinearInterpreter(model, x0, "taylor")
    J = torch.autograd.functional.jacobian(model, x0).reshape(24, 24)
    assert (taylor.todense() - J).norm() < 1e-12 * J.norm()
    with pytest.raises(ls.UnscopedOperation), ls.patch(model) as scoped:
        scoped(torch.cat([x0, 2 * x0, -x0]))


def test_a_rule_that_breaks_equation_3_is_found():
    class Net(nn.Module):
        def forward(self, x):
            return torch.sinc(x @ torch.eye(3, dtype=x.dtype)) + x

    ls.register_rule(torch.sinc, lambda freeze, x: x * freeze(torch.sinc, x))
    try:
        x0 = torch.ones(1, 3, dtype=torch.float64) / 3
        with pytest.raises(ls.CertificateError, match=r"output = f\(x0\) .*torch.sinc in Net"):
            ls.LinearInterpreter(Net(), x0)
        certificate = ls.LinearInterpreter(Net(), x0, check=False).certify()
        assert not certificate.ok
        assert certificate.errors["output = f(x0)"] > 0.1
    finally:
        del ls.rules.RULES[torch.sinc]


def test_nan_is_no_pass():
    class Net(nn.Module):
        def forward(self, x):
            return F.relu(x) * torch.nan

    with pytest.raises(ls.CertificateError):
        ls.LinearInterpreter(Net(), torch.ones(1, 3))


def test_a_check_costs_few_passes_and_may_be_left_out():
    model, x0 = build(Image), example(Image)
    assert ls.LinearInterpreter(model, x0, check=False).passes == 1
    assert ls.LinearInterpreter(model, x0).passes <= 7


def test_calls_are_named_in_order():
    calls = ls.LinearInterpreter(build(Spellings), example(Spellings)).calls()
    assert calls[0].endswith("sub in Spellings") or "sub" in calls[0]
    assert any("conv2d in first" in c for c in calls)
    assert calls[-1].endswith("__add__ in Spellings") or "add" in calls[-1]


def test_no_warning_on_a_plain_network():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ls.LinearInterpreter(build(Image), example(Image))


@pytest.mark.parametrize("storage", ["tape", "none"])
def test_a_filter_that_a_large_residual_hides_is_no_impostor(storage):
    model = build(Image, dtype=torch.float32)
    model.tail.bias.data += 1e8
    op = ls.LinearInterpreter(model, example(Image).float(), storage=storage)
    assert op.certify().ok
