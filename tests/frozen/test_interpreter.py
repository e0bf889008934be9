"""LinearInterpreter against the dense Jacobian, and against matrices multiplied by hand."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from networks import PIECEWISE, Gated, Image, Line, Spellings, build, example
from place import here
from torch import nn

import linscope_cuda as ls

pytestmark = pytest.mark.usefixtures("device")

STORAGES = ["tape", "none"]


def jacobian(model, x0):
    J = torch.autograd.functional.jacobian(model, x0)
    assert isinstance(J, torch.Tensor)
    return J.reshape(-1, x0.numel())


def relative(got, want):
    return ((got - want).norm() / want.norm()).item()


def dense(function, shape):
    """The matrix of a linear layer and its offset, column by column, from the layer itself."""
    zero = here(torch.zeros(1, *shape, dtype=torch.float64))
    offset = function(zero)
    size = zero.numel()
    columns = function(here(torch.eye(size, dtype=torch.float64)).reshape(size, *shape)) - offset
    return columns.reshape(size, -1).T, offset.flatten()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", PIECEWISE)
@pytest.mark.parametrize("storage", STORAGES)
class TestPiecewiseLinear:
    def test_equals_the_jacobian(self, kind, storage, seed):
        model, x0 = build(kind, seed), example(kind, seed)
        op, J = ls.LinearInterpreter(model, x0, storage=storage), jacobian(model, x0)
        assert relative(op.todense(), J) < 1e-12
        assert relative(op.T.todense(), J.T) < 1e-12
        r = model(x0).flatten() - J @ x0.flatten()
        assert relative(op.residual.flatten(), r) < 1e-12
        assert op.dottest() < 1e-12

    def test_equations_1_3_and_5(self, kind, storage, seed):
        model, x0 = build(kind, seed), example(kind, seed)
        op = ls.LinearInterpreter(model, x0, storage=storage)
        y0 = model(x0)
        assert torch.equal(op.output, y0)
        assert relative(op.filter(x0) + op.residual, y0) < 1e-12
        assert relative(op(x0), y0) < 1e-12
        a, b = example(kind, 10), example(kind, 11)
        assert relative(op(2 * a + b) - op(b), 2 * op.filter(a)) < 1e-12

    def test_rows_and_columns(self, kind, storage, seed):
        model, x0 = build(kind, seed), example(kind, seed)
        op, J = ls.LinearInterpreter(model, x0, storage=storage), jacobian(model, x0)
        rows, columns = [op.shape[0] // 3, op.shape[0] // 2], [1, op.shape[1] - 2]
        digits = 1e-12 * J.norm()  # the doubled batch subtracts r from a column
        assert (op.rows(rows).flatten(1) - J[rows]).norm() < digits
        assert (op.columns(columns).flatten(1) - J[:, columns].T).norm() < digits
        v, u = torch.randn_like(J[0]), torch.randn_like(J[:, 0])
        assert relative(op @ v, J @ v) < 1e-12
        assert relative(op.T @ u, J.T @ u) < 1e-12


@pytest.mark.parametrize("storage", STORAGES)
def test_instance_norm_equals_the_product_of_the_layers_matrices(storage):
    torch.manual_seed(3)
    first = here(nn.Conv2d(2, 3, 3, padding=1).double())
    norm = here(nn.InstanceNorm2d(3, affine=True).double())
    last = here(nn.Conv2d(3, 2, 3).double())
    for p in norm.parameters():
        nn.init.normal_(p)
    model = nn.Sequential(first, norm, nn.ReLU(), last).eval()
    x0 = here(torch.randn(1, 2, 6, 5, dtype=torch.float64))

    A1, b1 = dense(first, (2, 6, 5))
    A3, b3 = dense(last, (3, 6, 5))
    h = first(x0)
    std = (h.var((2, 3), unbiased=False) + norm.eps).sqrt().flatten()
    scale = (norm.weight / std).repeat_interleave(30)
    shift = (norm.bias - norm.weight * h.mean((2, 3)).flatten() / std).repeat_interleave(30)
    open = (norm(h) > 0).double().flatten()
    want = A3 @ torch.diag(open * scale) @ A1
    r = A3 @ (open * (scale * b1 + shift)) + b3

    op = ls.LinearInterpreter(model, x0, storage=storage)
    assert relative(op.todense(), want.detach()) < 1e-12
    assert relative(op.residual.flatten(), r.detach()) < 1e-12
    assert relative(op(x0), model(x0)) < 1e-12
    # It is the freeze of the paper, not the derivative.
    assert relative(op.todense(), jacobian(model, x0)) > 0.01


@pytest.mark.parametrize("storage", STORAGES)
def test_smooth_gates_equal_the_product_of_the_layers_matrices(storage):
    model, x0 = build(Gated), example(Gated)
    op = ls.LinearInterpreter(model, x0, storage=storage)
    (A, a), (B, b) = dense(model.a, (6,)), dense(model.b, (10,))
    h1 = model.a(x0).flatten()
    h2, h3 = F.silu(h1), F.gelu(F.silu(h1))
    h4 = B @ torch.tanh(h3) + b
    gates = (torch.tanh(h3) / h3) * torch.special.ndtr(h2) * torch.sigmoid(h1)
    outer = torch.diag((torch.sigmoid(h4) - 0.5) / h4)
    want = outer @ B @ torch.diag(gates) @ A
    assert relative(op.todense(), want.detach()) < 1e-12
    assert relative(op.residual.flatten(), (outer @ (B @ (gates * a) + b) + 0.5).detach()) < 1e-12
    assert op.dottest() < 1e-12


@pytest.mark.parametrize("kind", [*PIECEWISE, Gated])
def test_storages_agree_and_chunks_do_not_matter(kind):
    model, x0 = build(kind), example(kind)
    whole = ls.LinearInterpreter(model, x0)
    chunked = ls.LinearInterpreter(model, x0, storage="none", max_bytes=1)
    assert chunked.max_batch == 1
    x = here(torch.randn(3, *whole.input_shape, dtype=torch.float64))
    u = here(torch.randn(3, *whole.output_shape, dtype=torch.float64))
    assert relative(chunked.filter(x), whole.filter(x)) < 1e-12
    assert relative(chunked.transpose(u), whole.transpose(u)) < 1e-12


def test_not_the_deconvnet():
    """Zeiler's ReLU backward is a ReLU of what comes back; ours is x0's mask."""
    model = here(nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU()).double().eval())
    model[0].weight.data = here(torch.eye(2, dtype=torch.float64))
    op = ls.LinearInterpreter(model, here(torch.tensor([[1.0, -1.0]], dtype=torch.float64)))
    u = here(torch.tensor([[-3.0, 5.0]], dtype=torch.float64))
    assert op.transpose(u).tolist() == [[-3.0, 0.0]]
    assert (u.relu() @ model[0].weight).tolist() == [[0.0, 5.0]]


def test_half_a_float32_digit_is_lost_to_nothing_but_float32():
    model, x0 = build(Image, dtype=torch.float32), example(Image).float()
    op = ls.LinearInterpreter(model, x0)
    assert relative(op.filter(x0) + op.residual, model(x0)) < 1e-5
    assert op.dottest() < 1e-5


def test_small_columns_do_not_drown_in_a_large_residual():
    model, x0 = build(Image), example(Image)
    model.tail.bias.data += 1e8
    op = ls.LinearInterpreter(model, x0)
    assert relative(op.todense(), jacobian(model, x0)) < 1e-12


def test_channels_last_network_and_input():
    model = build(Spellings).to(memory_format=torch.channels_last)
    x0 = example(Spellings).to(memory_format=torch.channels_last)
    op = ls.LinearInterpreter(model, x0)
    assert relative(op.todense(), jacobian(model, x0)) < 1e-12
    assert relative(op.filter(x0.contiguous()), op.filter(x0)) < 1e-13


def test_the_model_stays_as_it_was():
    model, x0 = build(Spellings), example(Spellings)
    before, y0 = copy.deepcopy(model.state_dict()), model(x0)
    op = ls.LinearInterpreter(model, x0)
    op.todense(), op.T.todense(), op.residual
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(model(x0), y0)


def test_products_change_no_buffer():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("runs", torch.zeros(()))
            self.register_buffer("last", torch.zeros(1, 3))

        def forward(self, x):
            self.runs += 1
            self.last.fill_(self.runs)
            return torch.relu(x)

    model = here(Counts())
    op = ls.LinearInterpreter(model, here(torch.randn(1, 3)))
    before = copy.deepcopy(model.state_dict())
    op.filter(op.x0), op.transpose(op.x0), op.residual, op(op.x0), op.todense()
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    op.certify()
    assert model.runs > before["runs"] and op.certify().ok


def test_products_keep_no_graph_unless_the_probe_wants_one():
    model, x0 = build(Image), example(Image)
    op = ls.LinearInterpreter(model, x0)
    assert not op.filter(x0).requires_grad
    assert not op.transpose(op.output).requires_grad
    x = x0.clone().requires_grad_()
    u = torch.randn_like(op.output)
    (grad,) = torch.autograd.grad(op.filter(x), x, u)
    assert relative(grad, op.transpose(u)) < 1e-12


def test_results_are_plain_tensors():
    op = ls.LinearInterpreter(build(Image), example(Image))
    x, u = torch.zeros_like(op.x0), torch.zeros_like(op.output)
    for t in (op.output, op.residual, op.filter(x), op.transpose(u), x):
        assert type(t) is torch.Tensor and not t.__dict__


class Keeps(nn.Module):
    kept = None

    def forward(self, x):
        if self.kept is None:
            self.kept = 2 * x
        return x + self.kept


@pytest.mark.parametrize("storage", STORAGES)
def test_a_tensor_kept_from_an_earlier_run_is_a_constant(storage):
    model, x0 = Keeps(), here(torch.tensor([[3.0]]))
    model(here(torch.tensor([[5.0]])))
    op = ls.LinearInterpreter(model, x0, storage=storage)
    assert op.output.item() == 13 and op.todense().item() == 1 and op.residual.item() == 10


def test_a_tensor_that_is_kept_while_it_is_recorded_is_refused():
    model, x0 = Keeps(), here(torch.tensor([[3.0]]))
    with pytest.raises(ls.CertificateError, match="re-enacted"):
        ls.LinearInterpreter(model, x0)
    op = ls.LinearInterpreter(Keeps(), x0, check=False)  # the recorded run made it of its input
    assert op.output.item() == 9 and op.todense().item() == 3
    assert op.certify().wrong == "y of x0 - 1.5 a, re-enacted = y0 - 1.5 F a"


def test_passes_count_samples():
    op = ls.LinearInterpreter(build(Image), example(Image))
    start = op.passes
    op.filter(here(torch.zeros(5, *op.input_shape, dtype=torch.float64)))
    op.transpose(here(torch.zeros(2, *op.output_shape, dtype=torch.float64)))
    assert op.passes - start == 7


def test_tape_holds_a_bit_per_relu_and_a_byte_per_pooled_pixel():
    model = here(nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.MaxPool2d(2), nn.ReLU6())).eval()
    op = ls.LinearInterpreter(model, here(torch.randn(1, 1, 8, 8)))
    assert [e.nbytes for e in op.tape] == [4 * 64 // 8, 4 * 16, 4 * 16 // 4]
    assert op.tape.nbytes == 32 + 64 + 16
    assert "max_pool2d" in repr(op.tape) and "112 bytes" in repr(op.tape)


@pytest.mark.cuda
def test_cuda_runs_without_tf32_and_leaves_the_flags_as_they_were():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.fp32_precision, cudnn.allow_tf32, cudnn.benchmark
    model, x0 = build(Image, dtype=torch.float32).cuda(), example(Image).float().cuda()
    op = ls.LinearInterpreter(model, x0)
    want = ls.LinearInterpreter(build(Image), example(Image))
    assert relative(op.todense().double().cpu(), want.todense().cpu()) < 1e-5
    assert relative(op.T.todense().double().cpu(), want.todense().T.cpu()) < 1e-5
    assert (matmul.fp32_precision, cudnn.allow_tf32, cudnn.benchmark) == before


def test_precision_flags_are_set_within_and_restored(monkeypatch):
    from linscope_cuda.capture.model import _full_precision

    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    monkeypatch.setattr(cudnn, "benchmark", True)
    before = matmul.fp32_precision, cudnn.allow_tf32
    with pytest.raises(RuntimeError, match="on purpose"), _full_precision():
        assert (matmul.fp32_precision, cudnn.allow_tf32, cudnn.benchmark) == ("ieee", False, False)
        raise RuntimeError("on purpose")
    assert (matmul.fp32_precision, cudnn.allow_tf32, cudnn.benchmark) == (*before, True)


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            ({"x0": torch.zeros(0, 2, 9, 10)}, ValueError, "(0, 2, 9, 10)"),
            ({"x0": torch.zeros(1, 2, 9, 10)}, TypeError, "float32"),
            ({"x0": torch.zeros(1, 2, 9, 10).int()}, TypeError, "int32"),
            ({"x0": example(Image) / 0}, ValueError, "finite"),
            ({"x0": [1.0]}, TypeError, "list"),
            ({"model": F.relu}, TypeError, "Module"),
            ({"policy": "guess"}, ValueError, "'guess'"),
        ],
    )
    def test_bad_arguments(self, change, error, words):
        arguments = {"model": build(Image), "x0": example(Image), **change}
        with pytest.raises(error) as caught:
            ls.LinearInterpreter(**arguments)
        assert words in str(caught.value)

    @pytest.mark.parametrize(
        "layer", [nn.BatchNorm2d(2), nn.Dropout(), nn.BatchNorm2d(2, track_running_stats=False)]
    )
    def test_training_mode(self, layer):
        model = nn.Sequential(nn.Conv2d(2, 2, 1), layer)
        with pytest.raises(ValueError, match=type(layer).__name__):
            ls.LinearInterpreter(model, torch.randn(1, 2, 4, 4))

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: F.dropout(x, 0.5),
            lambda x: F.batch_norm(x, None, None, training=True),
        ],
    )
    def test_functional_training_mode(self, function):
        class Net(nn.Module):
            def forward(self, x):
                return function(x)

        with pytest.raises(ValueError, match="training mode"):
            ls.LinearInterpreter(Net(), torch.randn(1, 2, 4, 4))

    @pytest.mark.parametrize(
        ("function", "words"),
        [
            (torch.special.bessel_j0, "bessel_j0"),
            (torch.matrix_exp, "matrix_exp"),
            (lambda x: x.to(torch.int64), "to"),
            (lambda x: torch.ops.aten.square(x), "square"),
            (lambda x: x.clone().data_ptr() + x, "data_ptr"),
            (lambda x: F.conv2d(x, x), "conv2d"),
        ],
    )
    def test_unscoped_operations_are_named(self, function, words):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.block = nn.Sequential(Inner())

            def forward(self, x):
                return self.block(x)

        class Inner(nn.Module):
            def forward(self, x):
                return function(x)

        with pytest.raises(ls.UnscopedOperation, match=f"(?s)({words}).* in block.0"):
            ls.LinearInterpreter(Net(), torch.randn(1, 2, 4, 4))

    def test_an_output_that_cannot_be_followed(self):
        class Net(nn.Module):
            def forward(self, x):
                return torch.from_numpy(x.detach().numpy() ** 2)

        with pytest.raises(ls.UnscopedOperation):
            ls.LinearInterpreter(Net(), torch.randn(1, 2))


@pytest.mark.parametrize("other", [torch.tanh, lambda x: 2 * x])
def test_a_path_that_depends_on_the_batch_is_that_of_one_sample(other):
    class Branch(nn.Module):
        def forward(self, x):
            return torch.relu(x) if len(x) == 1 else other(x)

    x0, v = here(torch.randn(1, 4)), here(torch.randn(2, 4))
    op = ls.LinearInterpreter(Branch(), x0)
    assert torch.equal(op.filter(v), torch.where(x0 > 0, v, 0.0))
    assert torch.equal(op.transpose(v), torch.where(x0 > 0, v, 0.0))


class Sinc(nn.Module):
    def forward(self, x):
        return torch.sinc(x)


@pytest.fixture
def sinc_rule():
    del ls.rules.RULES[torch.sinc]
    return lambda freeze, x: x * freeze(lambda x0: torch.sinc(x0) / x0, x)


def test_register_rule(sinc_rule):
    x0 = torch.tensor([[2.5, -0.5]], dtype=torch.float64)
    with pytest.raises(ls.UnscopedOperation, match="register_rule"):
        ls.LinearInterpreter(Sinc(), x0)
    ls.register_rule(torch.sinc, sinc_rule)
    for storage in STORAGES:
        op = ls.LinearInterpreter(Sinc(), x0, storage=storage)
        assert relative(op.todense(), torch.diag((torch.sinc(x0) / x0)[0])) < 1e-15
    ls.register_rule(torch.sinc, lambda freeze, x: 3 * x, policy="taylor")
    with pytest.raises(ls.CertificateError, match=r"sinc in Sinc"):
        ls.LinearInterpreter(Sinc(), x0, policy="taylor")
    op = ls.LinearInterpreter(Sinc(), x0, policy="taylor", check=False)
    assert op.todense()[0, 0] == 3
    assert ls.LinearInterpreter(Sinc(), x0).todense()[0, 0] != 3


def test_a_rule_that_is_registered_later_changes_no_interpreter(sinc_rule):
    x0 = here(torch.tensor([[2.5, -0.5]], dtype=torch.float64))
    ls.register_rule(torch.sinc, sinc_rule)
    op = ls.LinearInterpreter(Sinc(), x0)
    want = op.todense(), op.T.todense(), op.residual
    ls.register_rule(torch.sinc, lambda freeze, x: 3 * x)
    assert ls.LinearInterpreter(Sinc(), x0, check=False).todense()[0, 0] == 3
    for found in (want, (op.todense(), op.T.todense(), op.residual)):
        assert all(map(torch.equal, found, want))
    x = here(torch.randn(3, 2, dtype=torch.float64))  # a batch that is new to it
    assert relative(op.filter(x), x @ want[0].T) < 1e-15


def test_register_rule_refuses():
    with pytest.raises(TypeError, match="functions"):
        ls.register_rule(torch.sinc, "sinc")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="guess"):
        ls.register_rule(torch.sinc, lambda freeze, x: x, policy="guess")


def test_other_dimensions_are_exercised():
    # The networks above hold every scope; a table that no longer catches one would show here.
    names = {
        e.function.rsplit(".", 1)[1]
        for kind in (Spellings, Image, Line, Gated)
        for e in ls.LinearInterpreter(build(kind), example(kind)).tape
    }
    assert names >= {"relu", "relu_", "leaky_relu", "prelu", "relu6", "max_pool2d", "clamp"}
    assert names >= {"gelu", "silu", "sigmoid", "tanh"}


@pytest.mark.parametrize("storage", ["cpu", "Tape", "disk", "None", ""])
def test_a_storage_that_is_no_word_and_no_path_is_refused(storage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = 'storage wants "tape", "none" or a folder: a Path, or a string with a separator'
    with pytest.raises(ValueError, match=f"{message}.*was given {storage!r}"):
        ls.LinearInterpreter(nn.Linear(3, 2), torch.randn(1, 3), storage=storage)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["tape", "none", "kept"])
def test_a_path_is_a_folder_whatever_it_is_called(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, x0 = nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.randn(1, 3)
    for storage in (Path(name), f"{name}/"):
        op = ls.LinearInterpreter(model, x0, storage=storage)
        assert list((tmp_path / name).iterdir())
        torch.testing.assert_close(op.filter(x0) + op.residual, model(x0).detach())
