"""What a network says about derivatives does not concern its frozen system: F^T is F's transpose.

And what has a derivative of its own, a custom autograd Function, has no F^T: it is refused by name.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linscope_cuda as ls


class Branch(nn.Module):
    """h + 0.3 conv(what `through` makes of h), behind a ReLU."""

    def __init__(self, through, sizes=(2, 4)):
        super().__init__()
        torch.manual_seed(0)
        inner, outer = sizes
        self.through = through
        self.head, self.conv = nn.Conv2d(inner, outer, 3), nn.Conv2d(outer, outer, 1)

    def forward(self, x):
        h = F.relu(self.head(x))
        return h + self.through(self.conv, h)


def without_gradients(conv, h):
    with torch.no_grad():
        return 0.3 * conv(h)


@torch.no_grad()
def decorated(conv, h):
    return 0.3 * conv(h)


def in_inference_mode(conv, h):
    with torch.inference_mode():
        c = torch.ones(4, 1, 1).to(h.dtype)
        return 0.3 * conv(h * c)


def switched_off(conv, h):
    torch.set_grad_enabled(False)
    y = 0.3 * conv(h)
    torch.set_grad_enabled(True)
    return y


def hooked(conv, h):
    h.register_hook(lambda g: 2 * g)
    return 0.3 * conv(h)


def written_through_data(conv, h):
    y = 0.3 * conv(h)
    y.data.mul_(2)
    y.data[:, 0] = h[:, 1]
    return y


def detached_in_place(conv, h):
    y = 0.3 * conv(h)
    y.detach_()
    return y


def retained(conv, h):
    if h.requires_grad:
        h.retain_grad()
    return 0.3 * conv(h)


THROUGH = {
    "detach": lambda conv, h: 0.3 * conv(h.detach()),
    "torch.detach": lambda conv, h: 0.3 * conv(torch.detach(h)),
    "data": lambda conv, h: conv(h) + h.data,
    "no_grad": without_gradients,
    "a decorator": decorated,
    "inference_mode": in_inference_mode,
    "set_grad_enabled": switched_off,
    "a hook that doubles": hooked,
    "writing through data": written_through_data,
    "detach_": detached_in_place,
    "requires_grad_": lambda conv, h: 0.3 * conv(h.requires_grad_()),
    "retain_grad": retained,
}


DIGITS = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("dtype", DIGITS)
@pytest.mark.parametrize("storage", ["tape", "none"])
@pytest.mark.parametrize("name", THROUGH)
def test_f_and_its_transpose_look_through(name, storage, dtype):
    model = Branch(THROUGH[name]).to(dtype).eval()
    x0 = torch.randn(1, 2, 6, 5).to(dtype)
    op = ls.LinearInterpreter(model, x0, storage=storage, check=False)
    eye = torch.eye(60).reshape(60, 2, 6, 5).to(dtype)
    at_zero = model_with(op, torch.zeros_like(x0))
    dense = (model_with(op, eye) - at_zero).reshape(60, -1).T
    assert (op.todense() - dense).abs().max() < DIGITS[dtype]
    rows = op.rows(range(op.shape[0])).reshape(op.shape)
    assert (rows - dense).abs().max() < DIGITS[dtype]
    assert op.certify().ok
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def model_with(op, x):
    """The network with x0's ReLUs, put together by hand."""
    model = op.model
    open_ = (model.head(op.x0) > 0).to(x.dtype)
    h = model.head(x) * open_
    return (h + model.through(model.conv, h)).detach()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_products_may_be_asked_for_in_inference_mode(dtype):
    model = Branch(THROUGH["detach"]).to(dtype).eval()
    x0 = torch.randn(1, 2, 6, 5).to(dtype)
    want = ls.LinearInterpreter(model, x0)
    u = torch.randn(1, *want.output_shape).to(dtype)
    with torch.inference_mode():
        op = ls.LinearInterpreter(model, x0)
        got = op.output, op.residual, op.filter(x0), op.transpose(u)
    due = want.output, want.residual, want.filter(x0), want.transpose(u)
    assert all(map(torch.equal, got, due))


@pytest.mark.parametrize("kind", ["full", "pre", "old"])
def test_backward_hooks_of_modules_change_nothing(kind):
    model = Branch(THROUGH["detach"]).double().eval()
    x0 = torch.randn(1, 2, 6, 5, dtype=torch.float64)
    want = ls.LinearInterpreter(model, x0).todense()
    doubled = {
        "full": lambda m, given, made: tuple(2 * g for g in given),
        "pre": lambda m, made: tuple(2 * g for g in made),
        "old": lambda m, given, made: tuple(None if g is None else 2 * g for g in given),
    }[kind]
    register = {
        "full": model.conv.register_full_backward_hook,
        "pre": model.conv.register_full_backward_pre_hook,
        "old": model.conv.register_backward_hook,
    }[kind]
    register(doubled)
    op = ls.LinearInterpreter(model, x0, check=False)
    assert torch.equal(op.todense(), want)
    assert (op.rows(range(op.shape[0])).reshape(op.shape) - want).abs().max() < 1e-13


class Reversal(torch.autograd.Function):
    """Gradient reversal: nothing forward, the wrong sign backward."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, *grads):
        return -grads[0]


class Untouched(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, *grads):
        return -grads[0]


class Separate(torch.autograd.Function):
    """A forward without its context."""

    @staticmethod
    def forward(x):
        return x + x + x

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *grads):
        return grads[0]


class Tripled(torch.autograd.Function):
    """Right forward, no derivative at all."""

    @staticmethod
    def forward(ctx, x):
        y = 3 * x
        ctx.mark_non_differentiable(y)
        return y

    @staticmethod
    def backward(ctx, *grads):
        return None


def around(function, alone):
    """A network with a custom Function, alone or beside a convolution."""
    through = (lambda conv, h: function.apply(h)) if alone else (
        lambda conv, h: conv(h) + function.apply(h)
    )  # fmt: skip
    return Branch(through).double().eval(), torch.randn(1, 2, 6, 5, dtype=torch.float64)


CUSTOM = [Reversal, Untouched, Separate, Tripled]


@pytest.mark.parametrize("function", CUSTOM)
@pytest.mark.parametrize("alone", [True, False])
def test_the_doubled_batch_refuses_a_custom_function_backward_by_name(function, alone):
    model, x0 = around(function, alone)
    op = ls.LinearInterpreter(model, x0, storage="none", check=False)
    v = torch.randn(2, 2, 6, 5, dtype=torch.float64)
    dense = model_with(op, v) - model_with(op, 0 * v)
    assert (op.filter(v) - dense).abs().max() < 1e-13
    with pytest.raises(ls.UnscopedOperation, match=rf"{function.__name__}.*derivative is its own"):
        op.transpose(op.output)
    with pytest.raises(ls.CertificateError, match=function.__name__):
        ls.LinearInterpreter(model, x0, storage="none")


@pytest.mark.parametrize("function", CUSTOM)
@pytest.mark.parametrize("alone", [True, False])
def test_a_tape_has_the_transpose_of_what_a_custom_function_does(function, alone):
    model, x0 = around(function, alone)
    op = ls.LinearInterpreter(model, x0)
    v = torch.eye(op.shape[1], dtype=torch.float64).reshape(-1, *op.input_shape)
    dense = (model_with(op, v) - model_with(op, 0 * v)).reshape(op.shape[::-1]).T
    assert (op.todense() - dense).abs().max() < 1e-13
    assert (op.T.todense() - dense.T).abs().max() < 1e-13
    assert op.certify().ok
