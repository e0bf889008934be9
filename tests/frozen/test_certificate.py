"""The certificate: green on what is linear, and red, with the call named, on what only seems so."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from networks import PIECEWISE, Gated, Image, Spellings, build, example
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

import linscope_cuda as ls
from linscope_cuda.frozen.certificate import _generator, _probe, quick


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


class WrongSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, *grads):
        return -grads[0]


class LeavesOut(torch.autograd.Function):
    """conv, with a derivative of 0: what a kernel without a backward pass would give."""

    @staticmethod
    def forward(ctx, x, weight):
        return F.conv2d(x, weight)

    @staticmethod
    def backward(ctx, *grads):
        return torch.zeros_like(grads[0]), None


class Wrong(ls.MatrixFreeOperator):
    """A network's filter with another transpose, as if nothing had refused it."""

    def __init__(self, op, transpose):
        super().__init__(op.input_shape, op.output_shape, op.dtype, op.device)
        self.op, self._transposed = op, transpose
        self.x0, self.output, self.residual = op.x0, op.output, op.residual
        self.policy, self.storage = op.policy, op.storage
        self.plain = op.plain

    def _matmat(self, x):
        return self.op.filter(x)

    def _rmatmat(self, u):
        return self._transposed(self.op, u)


DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("size", [12, 128])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_wrong_transpose_is_seen_in_every_dtype_and_at_every_size(dtype, size):
    model = Middle(lambda x: x).to(dtype).eval()
    x0 = torch.randn(1, 2, size, size).to(dtype)
    op = ls.LinearInterpreter(model, x0)
    seed = torch.Generator().manual_seed
    generator = seed(5)
    assert quick(op, generator).ok
    without = ls.LinearInterpreter(Middle(lambda x: 0 * x).to(dtype).eval(), x0, check=False)
    for wrong in (
        lambda op, u: -op.transpose(u),
        lambda op, u: 2 * op.transpose(u),
        lambda op, u: 0.9 * op.transpose(u),
        lambda op, u: without.transpose(u),
        lambda op, u: 0 * op.transpose(u),
    ):
        certificate = quick(Wrong(op, wrong), seed(5))
        assert certificate.wrong == "<F a, F a> = <F^T F a, a>", str(certificate)


@pytest.mark.parametrize("dtype", DTYPES)
def test_custom_functions_are_no_networks_in_any_dtype(dtype):
    weight = torch.randn(4, 4, 1, 1).to(dtype)
    for function in (WrongSign.apply, lambda x: LeavesOut.apply(x, weight)):
        model = Middle(function).to(dtype).eval()
        x0 = torch.randn(1, 2, 9, 8).to(dtype)
        with pytest.raises(ls.CertificateError, match=r"(WrongSign|LeavesOut).*derivative"):
            ls.LinearInterpreter(model, x0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs", [1, 3])
def test_small_honest_networks_are_certified_in_every_dtype(dtype, outputs):
    for seed in range(10):
        torch.manual_seed(seed)
        model = nn.Sequential(
            *(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 40), nn.GELU(), nn.Linear(40, outputs))
        )
        op = ls.LinearInterpreter(model.to(dtype).eval(), torch.randn(1, 20).to(dtype))
        assert op.certify(torch.Generator().manual_seed(seed)).ok


class Wide(nn.Module):
    """Another network for batches of three and more."""

    def forward(self, x):
        h = F.relu(x)
        return h * 2 if len(h) <= 2 else h * 3


@pytest.mark.parametrize("storage", ["tape", "none"])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_network_that_answers_by_the_number_of_samples_runs_one_at_a_time(storage, transposed):
    x0, v = torch.randn(1, 6).double(), torch.randn(5, 6).double()
    op = ls.LinearInterpreter(Wide(), x0, storage=storage, check=False)
    op = ls.LinearInterpreter(Wide(), x0) if storage == "tape" else op
    want = torch.where(x0 > 0, 2 * v, 0.0)
    if storage == "none":  # x0 and one probe are two
        with pytest.raises(ls.UnscopedOperation, match="x0's answer changes"):
            ls.LinearInterpreter(Wide(), x0, storage=storage).filter(v)
        return
    with pytest.warns(UserWarning, match="one at a time"):
        got = op.transpose(v) if transposed else op.filter(v)
    assert torch.equal(got, want) and op.max_batch == 1
    assert torch.equal(op.filter(v), want) and torch.equal(op.transpose(v), want)


def test_a_tape_from_a_file_is_tried_with_every_batch(tmp_path):
    x0, v = torch.randn(1, 4, 6).double(), torch.randn(2, 4, 6).double()
    with pytest.warns(UserWarning, match="one at a time"):
        op = ls.LinearInterpreter(Mixes(), x0)
    op.tape.save(tmp_path / "mixes.tape")
    loaded = ls.LinearInterpreter.from_tape(Mixes(), tmp_path / "mixes.tape")
    with pytest.warns(UserWarning, match="one at a time"):
        assert torch.equal(loaded.filter(v), op.filter(v))


class Flipped(nn.Module):
    def forward(self, x):
        return F.relu(x.flip(0))


def test_a_batch_in_another_order_is_no_batch():
    x0, v = torch.randn(1, 6).double(), torch.randn(3, 6).double()
    with pytest.raises(ls.UnscopedOperation, match="mixes the samples"):
        ls.LinearInterpreter(Flipped(), x0, storage="none")
    with pytest.warns(UserWarning, match="one at a time"):
        op = ls.LinearInterpreter(Flipped(), x0)
    assert torch.equal(op.filter(v), torch.where(x0 > 0, v, 0.0))


def test_the_probe_is_not_x0():
    """As it was where x0 was drawn after torch.manual_seed(0)."""

    for seed in (0, 1, 0x11A5C09E):
        torch.manual_seed(seed)
        x0 = torch.randn(1, 50, dtype=torch.float64)
        for storage in ("tape", "none"):
            op = ls.LinearInterpreter(nn.Identity(), x0, storage=storage)
            for given in (_generator(), torch.Generator().manual_seed(seed)):
                probe = _probe(op, given)
                assert (probe * x0).sum().abs() < 1e-10 and probe.norm() > 0.9 * x0.norm()
        normalized = ls.LinearInterpreter(Normalized(), x0, "taylor")  # F x0 = 0
        assert normalized.certify(torch.Generator().manual_seed(seed)).ok


class Normalized(nn.Module):
    def forward(self, x):
        return F.normalize(x)


class ByX(nn.Module):
    """A norm whose weight is made of the input."""

    def forward(self, x):
        return F.layer_norm(x, (4,), x.mean(1)[0])[0] if len(x) == 1 else x[0]


def test_a_shape_is_not_broadcast_away():
    x0 = torch.randn(1, 3, 4).double()
    with pytest.raises((ls.UnscopedOperation, ls.CertificateError, ValueError)):
        ls.LinearInterpreter(ByX(), x0, "taylor")
    with pytest.raises(ValueError, match="samples for one"):
        ls.LinearInterpreter(ByX(), x0, "taylor", check=False)


def test_a_rule_of_the_wrong_shape_is_refused():
    ls.register_rule(torch.sinc, lambda freeze, x: (x * freeze(torch.ones_like, x))[:, :2])
    try:
        model = nn.Module()
        model.forward = lambda x: torch.sinc(x)
        with pytest.raises(ls.CertificateError, match=r"output = f\(x0\)"):
            ls.LinearInterpreter(model, torch.randn(1, 3).double())
    finally:
        del ls.rules.RULES[torch.sinc]


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
