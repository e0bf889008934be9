"""Each function's transpose against its matrix, column by column."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lines import columns, traced, units

from linscope_cuda.operators import functions as ops
from linscope_cuda.program import Line, Program, Step, Value
from linscope_cuda.program.linear_part import linear_part
from linscope_cuda.program.tracer import Tracer
from linscope_cuda.program.transposed import NoTranspose, transposed
from linscope_cuda.program.transpositions import RULES

value = partial(Value, device=torch.device("cpu"))

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=GENERATOR, dtype=dtype)


def convolution(dims, transposed_=False, groups=1, **options):
    """Of 4 channels to 6, or, transposed, to as many for each group."""
    name = f"conv{'_transpose' if transposed_ else ''}{dims}d"
    wide = options.pop("kernel", (3, 2, 2)[:dims])
    weight = random(4, 6 // groups, *wide) if transposed_ else random(6, 4 // groups, *wide)
    return lambda x: getattr(F, name)(x, weight, groups=groups, **options)


CONVOLUTIONS = {
    "conv1d": ((1, 4, 7), convolution(1)),
    "conv1d with strides that leave some over": ((1, 4, 9), convolution(1, stride=4, padding=1)),
    "conv2d": ((1, 4, 5, 6), convolution(2, padding=(1, 0))),
    "conv2d with strides": ((1, 4, 8, 7), convolution(2, stride=(3, 2), padding=(2, 1))),
    "conv2d, dilated": ((1, 4, 8, 7), convolution(2, dilation=(2, 3), stride=2, padding=1)),
    "conv2d in groups": ((1, 4, 5, 5), convolution(2, groups=2, stride=2)),
    "conv2d, same": ((1, 4, 5, 5), convolution(2, padding="same", dilation=2)),
    "conv2d, rows that no window reaches": ((1, 4, 9, 9), convolution(2, stride=4)),
    "conv3d": ((1, 4, 4, 3, 4), convolution(3, stride=(2, 1, 2), padding=1)),
    "conv2d without a batch": ((4, 5, 6), convolution(2, stride=2)),
    "conv_transpose1d": ((1, 4, 4), convolution(1, True, stride=3, output_padding=2)),
    "conv_transpose2d": ((1, 4, 3, 4), convolution(2, True, stride=2, padding=1)),
    "conv_transpose2d in groups": ((1, 4, 3, 3), convolution(2, True, groups=2, stride=(2, 3))),
    "conv_transpose2d with more than a stride of padding": (
        (1, 4, 3, 3),
        convolution(2, True, dilation=3, output_padding=2),
    ),
    "conv_transpose2d, dilated": (
        (1, 4, 3, 3),
        convolution(2, True, dilation=2, stride=3, output_padding=(2, 1), padding=1),
    ),
    "conv_transpose3d": ((1, 4, 2, 3, 2), convolution(3, True, stride=2, output_padding=1)),
}

MATRIX, VECTOR, STACK = random(4, 4), random(4), random(3, 4, 5)
PLACES = torch.tensor([2, 0, 2])
PICTURE = (1, 2, 5, 6)


def frozen(scope, function, *others):
    """A frozen operator with the decisions for some picture."""

    def run(x):
        decision = scope(picture(x), *others)[1:]
        return function(x, *decision)

    return run


def picture(x):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(x.shape, generator=generator, dtype=x.dtype)


def pooled(x, *window):
    _, winners = ops.max_pool2d_scope(picture(x), 1, *window)
    return ops.max_pool2d_frozen(x, winners, *window)


def unpooled(x, *window):
    before = torch.zeros(1, 2, 7, 6, dtype=x.dtype)
    y, winners = ops.max_pool2d_scope(picture(before), 1, *window)
    assert y.shape == x.shape
    return ops.max_pool2d_frozen_transpose(x, winners, before.shape[2:], *window)


def normed(x):
    _, _, rstd = ops.instance_norm_scope(picture(x))
    return ops.instance_norm_frozen(x, None, rstd)


aten = torch.ops.aten
# A derivative's own slope, times x.
SLOPES = {
    "silu_backward": aten.silu_backward,
    "gelu_backward": aten.gelu_backward,
    "sigmoid_backward": aten.sigmoid_backward,
    "tanh_backward": aten.tanh_backward,
    "hardswish_backward": aten.hardswish_backward,
    "hardsigmoid_backward": aten.hardsigmoid_backward,
    "elu_backward": lambda x, at: aten.elu_backward(x, 1.0, 1.0, 1.0, False, at),
    "leaky_relu_backward": lambda x, at: aten.leaky_relu_backward(x, at, 0.1, False),
    "threshold_backward": lambda x, at: aten.threshold_backward(x, at, 0.1),
    "hardtanh_backward": lambda x, at: aten.hardtanh_backward(x, at, -0.5, 0.5),
    "softplus_backward": lambda x, at: aten.softplus_backward(x, at, 1.0, 20.0),
    "mish_backward": aten.mish_backward,
    "log_sigmoid_backward": lambda x, at: aten.log_sigmoid_backward(x, at, (-at.abs()).exp()),
    "softshrink_backward": lambda x, at: aten.softshrink_backward(x, at, 0.1),
    "hardshrink_backward": lambda x, at: aten.hardshrink_backward(x, at, 0.1),
}

FUNCTIONS = {
    "mul of a row": ((1, 3, 4), lambda x: x * VECTOR),
    "mul that broadcasts": ((1, 3, 1), lambda x: x * STACK[:1, :3, :]),
    "mul by more dimensions": ((1, 4), lambda x: STACK[:2, :, :1] * x),
    "mul of a constant": ((1, 4), lambda x: torch.mul(VECTOR, x)),
    "mul of a number": ((1, 4), lambda x: 3 * x),
    "mul of one number": ((1, 1), lambda x: x[0, 0] * MATRIX[None]),
    "div": ((1, 3, 4), lambda x: x / VECTOR),
    "div that broadcasts": ((1, 3, 1), lambda x: x / STACK[:1, :3, :]),
    "div by a number": ((1, 4), lambda x: x / 3),
    "add of itself": ((1, 4), lambda x: torch.add(x, x, alpha=3)),
    "add that broadcasts": ((1, 3, 4), lambda x: torch.add(x, x[:, :1], alpha=-1)),
    "add of a sum": ((1, 3, 4), lambda x: x + x.sum()),
    "sub": ((1, 3, 4), lambda x: torch.sub(x[:, :1], x, alpha=0.5)),
    "sub of its mean": ((1, 3, 4), lambda x: x - x.mean(2, keepdim=True)),
    "rsub": ((1, 4), lambda x: torch.rsub(x, x.flip(1), alpha=2)),
    "neg": ((1, 4), lambda x: -x),
    "mm": ((1, 4), lambda x: x @ MATRIX),
    "mm from the left": ((4, 3), lambda x: MATRIX @ x),
    "mm of a turned one": ((4, 3), lambda x: x.t() @ MATRIX.t()),
    "bmm": ((3, 2, 4), lambda x: torch.bmm(x, STACK)),
    "bmm from the left": ((3, 5, 2), lambda x: torch.bmm(STACK, x)),
    "matmul that broadcasts": ((1, 3, 2, 4), lambda x: x @ STACK),
    "mv": ((1, 4), lambda x: torch.mv(MATRIX, x[0])[None]),
    "dot": ((1, 4), lambda x: torch.dot(VECTOR, x[0])[None]),
    "view": ((1, 3, 4), lambda x: x.view(2, 6)),
    "reshape of a turned one": ((1, 3, 4), lambda x: x.mT.reshape(3, 4)),
    "unsqueeze": ((1, 3), lambda x: x[:, None, :, None]),
    "squeeze": ((1, 3, 1), lambda x: x.squeeze(2).squeeze()),
    "squeeze of some": ((1, 3, 1), lambda x: x.squeeze((0, -1))),
    "permute": ((1, 3, 4), lambda x: x.permute(2, 0, -2)),
    "transpose": ((1, 3, 4), lambda x: x.transpose(-1, 1)),
    "t": ((3, 4), lambda x: x.t()),
    "expand": ((1, 3, 1), lambda x: x.expand(2, -1, 4)),
    "expand by more dimensions": ((1, 3), lambda x: x.expand(2, 2, 1, 3)),
    "clone": ((1, 3), lambda x: x.clone()),
    "to another dtype": ((1, 3), lambda x: (x.float() * 2).double()),
    "cat": ((1, 3, 4), lambda x: torch.cat([x[:, 1:], x, 0 * STACK[:1, :2, :4], x[:, :1]], -2)),
    "cat with nothing": ((1, 4), lambda x: torch.cat([x, torch.zeros(0).double(), x], 1)),
    "stack": ((1, 3), lambda x: torch.stack([x, 2 * x, VECTOR[None, :3] * 0, x], -1)),
    "slice": ((1, 5, 4), lambda x: x[:, 1:4:2, -3:]),
    "slice beyond the end": ((1, 5), lambda x: x[:, 2:99]),
    "an empty slice": ((1, 5), lambda x: torch.cat([x[:, 3:3], x], 1)),
    "select": ((1, 5, 4), lambda x: x.select(-2, -1)),
    "sum": ((1, 3, 4), lambda x: x.sum().view(1)),
    "sum of a dimension": ((1, 3, 4), lambda x: x.sum(-1)),
    "sum of some, kept": ((1, 3, 4), lambda x: x.sum((0, -2), keepdim=True)),
    "sum in another dtype": ((1, 3), lambda x: x.float().sum(1, dtype=torch.float64)),
    "mean": ((1, 3, 4), lambda x: x.mean().view(1)),
    "mean of some": ((1, 3, 4), lambda x: x.mean((-1, 0))),
    "relu_frozen": (PICTURE, frozen(ops.relu_scope, ops.relu_frozen)),
    "pool": ((1, 2, 7, 6), lambda x: pooled(x, 3, 2, 1)),
    "pool, dilated": ((1, 2, 7, 6), lambda x: pooled(x, 2, 1, 0, 2)),
    "a pool's transpose": ((1, 2, 4, 3), lambda x: unpooled(x, 3, 2, 1)),
    # Without a rule: by their derivatives.
    "unfold": ((1, 5), lambda x: x.unfold(1, 3, 1)),
    "diagonal": ((3, 4), lambda x: x.diagonal(1)),
    "as_strided": ((1, 6), lambda x: x.as_strided((3, 3), (1, 1))),
    "flip and roll": ((1, 3, 4), lambda x: x.flip(1).roll(1, 2)),
    "index": ((1, 4), lambda x: x[:, PLACES]),
    "gather": ((1, 4), lambda x: x.gather(1, PLACES[None])),
    "cumsum": ((1, 4), lambda x: x.cumsum(1)),
    "avg_pool2d": (PICTURE, lambda x: F.avg_pool2d(x, 3, 2, 1, True, False)),
    "adaptive_avg_pool2d": (PICTURE, lambda x: F.adaptive_avg_pool2d(x, (3, 4))),
    "interpolate": (PICTURE, lambda x: F.interpolate(x, (7, 4), mode="bicubic")),
    "reflect": (PICTURE, lambda x: F.pad(x, (1, 2, 0, 3), mode="reflect")),
    "replicate": (PICTURE, lambda x: F.pad(x, (1, 2, 0, 3), mode="replicate")),
    "crop": (PICTURE, lambda x: F.pad(x, (-1, 2, 1, -2))),
    "pixel_shuffle": ((1, 8, 2, 3), lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2)[..., :2], 2)),
    "index_put": (
        (1, 3),
        lambda x: MATRIX.mul(0).index_put((PLACES, PLACES), x[0], accumulate=True),
    ),
    "where": ((1, 4), lambda x: torch.where(VECTOR > 0, x, 2 * x.flip(1))),
    "einsum": ((1, 3, 4), lambda x: torch.einsum("nij,kjm->nikm", x, STACK)),
    "fft": ((1, 2, 6), lambda x: torch.fft.irfft(torch.fft.rfft(x) * 1j, 6)),
    "complex parts": ((1, 4), lambda x: (torch.fft.fft(x) * (1 + 2j)).imag),
    "complex numbers": ((1, 4, 2), lambda x: torch.view_as_real(torch.view_as_complex(x) * 1j)),
    "lerp": ((1, 4), lambda x: torch.lerp(x, x.flip(1), 0.25)),
    "matmul that broadcasts over more": ((1, 2, 4), lambda x: x @ STACK),
    "clamp_frozen": (PICTURE, frozen(ops.clamp_scope, ops.clamp_frozen)),
    "gate_frozen": (PICTURE, frozen(ops.gate_scope, ops.gate_frozen)),
    "instance_norm_frozen": (PICTURE, normed),
    **{
        name: ((1, 4), lambda x, slope=slope: slope(x, VECTOR[None]))
        for name, slope in SLOPES.items()
    },
}  # fmt: skip

CASES = {**CONVOLUTIONS, **FUNCTIONS}


def case(name):
    """A function of one sample, an x, and the function's linear program."""
    shape, function = CASES[name]
    x = random(1, *shape)

    def one(x):
        return function(x[0])[None]

    return one, x, Program(traced(one, x)[0]).linear


@pytest.mark.parametrize("name", CASES)
def test_the_transpose_is_that_of_the_matrix(name):
    function, x, program = case(name)
    digits = 1e-6 if "dtype" in name else 1e-13
    close = {"rtol": digits, "atol": digits}
    F_ = columns(function, x.shape)
    assert not function(torch.zeros_like(x)).any()
    torch.testing.assert_close(columns(program, x.shape), F_, **close)
    shape = function(x).shape
    torch.testing.assert_close(columns(program.T, shape), F_.T, **close)
    us = units(shape).flatten(0, 1)
    torch.testing.assert_close(program.T(us).flatten(1), F_, **close)


# torch has no derivative of what their transposes write into a part of complex numbers.
ONCE = ["fft"]


@pytest.mark.parametrize("name", CASES)
def test_the_transpose_of_the_transpose_is_the_function(name):
    function, x, program = case(name)
    if name in ONCE:
        with pytest.raises(NoTranspose, match="complex"):
            transposed(transposed(program.line))
        return
    digits = 1e-6 if "dtype" in name else 1e-13
    F_ = columns(function, x.shape)
    for back in (program.T.T, transposed(transposed(program.line))):
        torch.testing.assert_close(columns(back, x.shape), F_, rtol=digits, atol=digits)


# Steps that a tracer writes down otherwise: a function's arguments, and shapes before and after.
HAND_MADE = {
    aten.view.default: (([2, 6],), (1, 3, 4), (2, 6)),
    aten._reshape_alias.default: (([2, 6], [6, 1]), (1, 3, 4), (2, 6)),
    aten.unsqueeze.default: ((-1,), (1, 3), (1, 3, 1)),
    aten.squeeze.default: ((), (1, 3, 1), (3,)),
    aten.squeeze.dim: ((2,), (1, 3, 1), (1, 3)),
    aten.squeeze.dims: (([0, -1],), (1, 3, 1), (3,)),
    aten.alias.default: ((), (1, 3), (1, 3)),
}


@pytest.mark.parametrize("function", HAND_MADE, ids=str)
def test_shapes_in_a_line_that_is_made_by_hand(function):
    args, before, after = HAND_MADE[function]
    x = value(0, before, torch.float64)
    y = value(1, after, torch.float64)
    line = Line(x, [Step(function, (x, *args), {}, (y,))], y)
    want = columns(lambda e: function(e, *args), before)
    assert torch.equal(columns(line, before), want)
    assert torch.equal(columns(transposed(line), after), want.T)
    assert torch.equal(columns(transposed(transposed(line)), before), want)


def test_every_rule_is_taken():
    taken = set(HAND_MADE)
    for name in CASES:
        function, x, _ = case(name)
        line = linear_part(traced(function, x)[0])
        back = transposed(line)
        taken |= {s.function for made in (line, back) for s in made.steps}
    assert not {str(f) for f in RULES.keys() - taken}


def test_what_has_no_derivative_is_refused_by_name():
    tracer = Tracer()
    with torch.no_grad(), tracer:
        given = tracer.input(random(1, 4))
        tracer.label = "zeta in Net"
        y = torch.special.zeta(given, VECTOR)
    with pytest.raises(NoTranspose, match=r"^zeta in Net has no transpose: "):
        transposed(tracer.line(y))


def test_what_the_answer_does_not_depend_on_has_a_transpose_of_zeros():
    line, _ = traced(lambda x: torch.cat([x[:, 2:], x[:, 3:]], 1), random(1, 4))
    assert torch.equal(transposed(line)(torch.ones(1, 3).double())[0, :2], torch.zeros(2).double())
    line, _ = traced(lambda x: (x + 1)[:, :0], random(1, 4))
    assert torch.equal(transposed(line)(torch.zeros(1, 0).double()), torch.zeros(1, 4).double())
