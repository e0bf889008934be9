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


class Wrong(ls.MatrixFreeOperator):
    """A network's filter with another transpose, as if nothing had refused it."""

    def __init__(self, op, transpose):
        super().__init__(op.input_shape, op.output_shape, op.dtype, op.device)
        self.op, self._transposed = op, transpose
        self.x0, self.output, self.residual = op.x0, op.output, op.residual
        self.policy, self.storage, self.narrowest = op.policy, op.storage, op.narrowest
        self.plain, self.reenact = op.plain, op.reenact

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


class Backwards(torch.autograd.Function):
    """Whose derivative is not the transpose of what it does, as that of a gradient reversal."""

    @staticmethod
    def backward(ctx, *grads):
        return -0.5 * grads[0], *[None] * ctx.constants


class WrongWayBack(Backwards):
    @staticmethod
    def forward(ctx, x):
        ctx.constants = 0
        return 3 * x


class WrongSign(Backwards):
    @staticmethod
    def forward(ctx, x):
        ctx.constants = 0
        return x.view_as(x)


class LeavesOut(Backwards):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.constants = 1
        return F.conv2d(x, weight)


WEIGHT = torch.randn(4, 4, 1, 1, generator=torch.Generator().manual_seed(1)).double()

# Each with what it does forward.
CUSTOM = {
    WrongWayBack: (WrongWayBack.apply, lambda x: 3 * x),
    WrongSign: (WrongSign.apply, lambda x: x),
    LeavesOut: (
        lambda x: LeavesOut.apply(x, WEIGHT.to(x.dtype)),
        lambda x: F.conv2d(x, WEIGHT.to(x.dtype)),
    ),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", CUSTOM)
def test_the_doubled_batch_refuses_custom_functions_in_any_dtype(kind, dtype):
    model = Middle(CUSTOM[kind][0]).to(dtype).eval()
    x0 = torch.randn(1, 2, 9, 8).to(dtype)
    with pytest.raises(ls.CertificateError, match=rf"{kind.__name__}.*derivative"):
        ls.LinearInterpreter(model, x0, storage="none")
    certificate = ls.LinearInterpreter(model, x0, storage="none", check=False).certify()
    assert not certificate.ok and kind.__name__ in (certificate.refused or "")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", CUSTOM)
def test_a_tape_looks_through_custom_functions_in_any_dtype(kind, dtype):
    function, forward = CUSTOM[kind]
    model, x0 = Middle(function).to(dtype).eval(), torch.randn(1, 2, 9, 8).to(dtype)
    op = ls.LinearInterpreter(model, x0)
    assert op.certify().ok
    if dtype == torch.float64:
        plain = Middle(forward).double().eval()
        J = torch.autograd.functional.jacobian(plain, x0).reshape(op.shape)
        wrong = torch.autograd.functional.jacobian(model, x0).reshape(op.shape)
        assert (J - wrong).norm() > 0.1 * J.norm()
        assert (op.todense() - J).norm() < 1e-13 * J.norm()
        assert (op.T.todense().T - op.todense()).norm() < 1e-13 * J.norm()


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


class Flipped(nn.Module):
    """The batch in another order."""

    def forward(self, x):
        return F.relu(x.flip(0)) * 2


@pytest.fixture
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("model", [Wide(), Flipped()])
def test_a_tape_is_that_of_one_sample(model, no_warning):
    x0, v = torch.randn(1, 6).double(), torch.randn(5, 6).double()
    op = ls.LinearInterpreter(model, x0)
    want = torch.where(x0 > 0, 2 * v, 0.0)
    assert torch.equal(op.filter(v), want) and torch.equal(op.transpose(v), want)
    assert op.max_batch is not None and op.max_batch > 1000


@pytest.mark.parametrize(
    ("model", "words"), [(Wide(), "x0's answer changes"), (Flipped(), "mixes the samples")]
)
def test_the_doubled_batch_wants_samples_apart(model, words):
    x0, v = torch.randn(1, 6).double(), torch.randn(5, 6).double()
    with pytest.raises(ls.UnscopedOperation, match=words):
        ls.LinearInterpreter(model, x0, storage="none").filter(v)


class FlippedProbes(nn.Module):
    """The first sample stays where it is, the others change places."""

    def forward(self, x):
        return 2 * F.relu(torch.cat([x[:1], x[1:].flip(0)]))


@pytest.mark.parametrize("transposed", [False, True])
def test_a_doubled_batch_whose_probes_mix_runs_them_one_at_a_time(transposed):
    x0, v = torch.randn(1, 6).double(), torch.randn(5, 6).double()
    op = ls.LinearInterpreter(FlippedProbes(), x0, storage="none")
    want = torch.where(x0 > 0, 2 * v, 0.0)
    with pytest.warns(UserWarning, match="one at a time"):
        got = op.transpose(v) if transposed else op.filter(v)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for y in (got, op.filter(v), op.transpose(v)):
            torch.testing.assert_close(y, want, rtol=1e-13, atol=1e-13)


def test_a_tape_from_a_file_is_that_of_one_sample_too(tmp_path, no_warning):
    x0, v = torch.randn(1, 4, 6).double(), torch.randn(2, 4, 6).double()
    op = ls.LinearInterpreter(Mixes(), x0)
    op.tape.save(tmp_path / "mixes.tape")
    loaded = ls.LinearInterpreter.from_tape(Mixes(), tmp_path / "mixes.tape")
    alone = torch.cat([op.filter(one[None]) for one in v])
    torch.testing.assert_close(loaded.filter(v), alone, rtol=1e-13, atol=1e-13)
    assert torch.equal(loaded.filter(v), op.filter(v))


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


def test_a_model_written_for_one_sample_gives_one_without_a_batch():
    x0, v = torch.randn(1, 3, 4).double(), torch.randn(3, 3, 4).double()
    op = ls.LinearInterpreter(ByX(), x0, "taylor")
    J = torch.autograd.functional.jacobian(lambda x: ByX()(x[None]), x0[0])
    assert op.output_shape == (3, 4)
    torch.testing.assert_close(op.filter(v), torch.einsum("abij,kij->kab", J, v))
    with pytest.raises(ls.UnscopedOperation, match="written for one"):
        ls.LinearInterpreter(ByX(), x0, "taylor", storage="none", check=False).filter(v)


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
def test_networks_that_mix_a_batch_are_those_of_one_sample(model, no_warning):
    x0 = torch.randn(1, 4, 6, dtype=torch.float64)
    op = ls.LinearInterpreter(model, x0)
    assert op.max_batch is not None and op.max_batch > 1000 and op.certify().ok
    v = torch.randn(3, 4, 6, dtype=torch.float64)
    for product in (op.filter, op.transpose):
        alone = torch.cat([product(one[None]) for one in v])
        torch.testing.assert_close(product(v), alone, rtol=1e-13, atol=1e-13)
    taylor = ls.LinearInterpreter(model, x0, "taylor")
    J = torch.autograd.functional.jacobian(model, x0).reshape(24, 24)
    assert (taylor.todense() - J).norm() < 1e-12 * J.norm()
    with pytest.raises(ls.UnscopedOperation), ls.patch(model) as scoped:
        scoped(torch.cat([x0, 2 * x0, -x0]))


class Alternates(nn.Module):
    """Another path at every second call."""

    def __init__(self, paths):
        super().__init__()
        self.paths, self.calls = paths, 0

    def forward(self, x):
        self.calls += 1
        return self.paths[self.calls % len(self.paths)](x)


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([torch.tanh, torch.relu], "tanh.*torch.relu"),
        ([lambda x: 2 * x, torch.relu], "ended before .*torch.relu"),
        ([lambda x: torch.relu(torch.relu(x)), torch.relu], "no more calls"),
    ],
)
def test_a_path_that_changes_from_call_to_call_is_found_where_it_is_run_again(paths, words):
    """Not in products, which are those of the run that was recorded."""
    x0, v = torch.randn(1, 4).double(), torch.randn(2, 4).double()
    with pytest.raises(ls.TapeMismatch, match=words):
        ls.LinearInterpreter(Alternates(paths), x0)
    op = ls.LinearInterpreter(Alternates(paths), x0, check=False)
    assert torch.equal(op.filter(v), torch.where(x0 > 0, v, 0.0))
    with pytest.raises(ls.TapeMismatch, match=words):
        op.certify()


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
