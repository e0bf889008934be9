"""y = A x + c: each function's A and c, against the function itself."""

import pytest
import torch
import torch.nn.functional as F
from lines import columns, traced

from linscope_cuda.program import Line, Step, Value
from linscope_cuda.program.linear_part import AFFINE, LINEAR, _at_zero, linear_part, offset
from linscope_cuda.program.live import Live
from linscope_cuda.program.tracer import Tracer

aten = torch.ops.aten


def random(*shape):
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


GENERATOR = torch.Generator().manual_seed(0)
OPEN = random(1, 3, 4) > 0
PLACES = torch.tensor([2, 0, 1])
VECTOR, MATRIX = random(4), random(4, 4)
MEANS, VARIANCES = random(3), random(3) ** 2 + 0.1
MATRICES = random(1, 4, 5)


# By name: a function of an x of this shape, and which of its steps add a constant of their own.
CASES = {
    "conv1d": (
        (1, 4, 6),
        lambda x, w, b: F.conv1d(x, w, b),
        (
            random(3, 4, 2),
            random(3),
        ),
        [aten.convolution],
    ),
    "conv2d": (
        (1, 4, 6, 5),
        lambda x, w, b: F.conv2d(x, w, b, 2, 1, 1, 2),
        (
            random(6, 2, 3, 3),
            random(6),
        ),
        [aten.convolution],
    ),
    "conv2d without a bias": ((1, 2, 4, 3), lambda x, w: F.conv2d(x, w), (random(3, 2, 2, 2),), []),
    "conv3d": (
        (1, 2, 4, 4, 4),
        lambda x, w, b: F.conv3d(x, w, b),
        (
            random(3, 2, 2, 2, 2),
            random(3),
        ),
        [aten.convolution],
    ),
    "conv3d without a batch": (
        (2, 4, 4, 4),
        lambda x, w, b: F.conv3d(x, w, b),
        (
            random(3, 2, 2, 2, 2),
            random(3),
        ),
        [aten.convolution],
    ),
    "conv_transpose1d": (
        (1, 4, 3),
        lambda x, w, b: F.conv_transpose1d(x, w, b, 2),
        (
            random(4, 3, 2),
            random(3),
        ),
        [aten.convolution],
    ),
    "conv_transpose2d": (
        (1, 4, 3, 3),
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 0, 1, 2),
        (
            random(4, 3, 2, 2),
            random(6),
        ),
        [aten.convolution],
    ),
    "linear": (
        (1, 4),
        lambda x, w, b: F.linear(x, w, b),
        (
            random(3, 4),
            random(3),
        ),
        [aten.addmm],
    ),
    "linear of rows": (
        (1, 7, 4),
        lambda x, w, b: F.linear(x, w, b),
        (
            random(3, 4),
            random(3),
        ),
        [aten.addmm],
    ),
    "linear without a bias": ((1, 4), lambda x, w: F.linear(x, w), (random(3, 4),), []),
    "batch_norm of vectors": (
        (1, 3),
        lambda x, b: F.batch_norm(x, MEANS, VARIANCES, b, b + 1),
        (random(3),),
        [aten.native_batch_norm],
    ),
    "batch_norm of images": (
        (1, 3, 4, 2),
        lambda x, b: F.batch_norm(x, MEANS, VARIANCES, None, b, eps=0.1),
        (random(3),),
        [aten.native_batch_norm],
    ),
    "batch_norm about 0": (
        (1, 3, 4, 2),
        lambda x: F.batch_norm(x, 0 * MEANS, VARIANCES),
        (),
        [],
    ),
    "add": ((1, 3, 4), lambda x, b: torch.add(x, b), (random(3, 1),), [aten.add]),
    "add of something larger": (
        (1, 3, 1),
        lambda x, b: (x + b)[:1],
        (random(2, 3, 4),),
        [aten.add],
    ),
    "add with a factor": ((1, 3, 4), lambda x: torch.add(x, VECTOR, alpha=-2), (), [aten.add]),
    "add to a constant": ((1, 3, 4), lambda x: torch.add(VECTOR, x, alpha=3), (), [aten.add]),
    "add of zeros": ((1, 4), lambda x: x + torch.zeros(4, dtype=torch.float64), (), []),
    "add of itself": ((1, 4), lambda x: torch.add(x, x, alpha=2), (), []),
    "add in place": ((1, 4), lambda x: x.clone().add_(VECTOR), (), [aten.add]),
    "sub of a number": ((1, 3, 4), lambda x: x - 0.5, (), [aten.sub]),
    "sub from a constant": ((1, 4), lambda x: torch.sub(VECTOR, x, alpha=0.5), (), [aten.sub]),
    "sub of two": ((1, 4), lambda x: torch.sub(x, x.flip(1), alpha=0.5), (), []),
    "rsub of something larger": (
        (1, 3, 1),
        lambda x, b: torch.rsub(x, b),
        (random(1, 3, 4),),
        [aten.rsub],
    ),
    "rsub of a number": ((1, 4), lambda x: 1 - x, (), [aten.rsub]),
    "add of float32": ((1, 4), lambda x: VECTOR.float() + x, (), [aten.add]),
    "add in float32": ((1, 4), lambda x: (x.float() * 2).double() + 1, (), [aten.add]),
    "pad": ((1, 3, 4), lambda x: F.pad(x, (1, 2), value=2.0), (), [aten.constant_pad_nd]),
    "pad with zeros": ((1, 3, 4), lambda x: F.pad(x, (1, 2)), (), []),
    "cat": ((1, 3, 4), lambda x: torch.cat([VECTOR.expand(1, 2, 4), x, x], 1), (), [aten.cat]),
    "cat of itself": ((1, 3, 4), lambda x: torch.cat([x, x], 1), (), []),
    "stack": ((1, 4), lambda x: torch.stack([x, VECTOR[None]], 1), (), [aten.stack]),
    "where": ((1, 3, 4), lambda x: torch.where(OPEN, x, 0.7), (), [aten.where]),
    "where else": ((1, 3, 4), lambda x: torch.where(OPEN, VECTOR, x), (), [aten.where]),
    "where of two": ((1, 3, 4), lambda x: torch.where(OPEN, x, x.flip(2)), (), []),
    "where of zeros": ((1, 3, 4), lambda x: torch.where(OPEN, x, 0.0), (), []),
    "masked_fill": ((1, 3, 4), lambda x: x.masked_fill(OPEN, 2.0), (), [aten.masked_fill]),
    "masked_fill by a tensor": (
        (1, 3, 4),
        lambda x: x.masked_fill(OPEN, VECTOR[0]),
        (),
        [aten.masked_fill],
    ),
    "masked_fill with zeros": ((1, 3, 4), lambda x: x.masked_fill(OPEN, 0.0), (), []),
    "masked_fill of a constant": (
        (1, 3, 4),
        lambda x: (VECTOR * torch.ones_like(x)).masked_fill(OPEN, x[0, 0, 0]),
        (),
        [aten.masked_fill],
    ),
    "masked_scatter": (
        (1, 3, 4),
        lambda x, b: x.masked_scatter(OPEN, b),
        (random(12),),
        [aten.masked_scatter],
    ),
    "index_put": (
        (1, 3, 4),
        lambda x: torch.index_put(x, (torch.tensor([0]), PLACES[:1]), VECTOR),
        (),
        [aten.index_put],
    ),
    "index_put that adds": (
        (1, 3, 4),
        lambda x: torch.index_put(x, (torch.tensor([0]), PLACES[:1]), VECTOR, accumulate=True),
        (),
        [aten.index_put],
    ),
    "index_put into a constant": (
        (1, 4),
        lambda x: MATRIX.index_put((PLACES[:1],), x)[None],
        (),
        [aten.index_put],
    ),
    "index_add": (
        (1, 4),
        lambda x: x.index_add(1, PLACES[:2], VECTOR[None, :2], alpha=2),
        (),
        [aten.index_add],
    ),
    "index_copy": (
        (1, 4),
        lambda x: x.index_copy(1, PLACES[:2], VECTOR[None, :2]),
        (),
        [aten.index_copy],
    ),
    "index_fill": ((1, 4), lambda x: x.index_fill(1, PLACES[:2], 3.0), (), [aten.index_fill]),
    "scatter": (
        (1, 4),
        lambda x: x.scatter(1, PLACES[None, :2], VECTOR[None, :2]),
        (),
        [aten.scatter],
    ),
    "scatter of a number": (
        (1, 4),
        lambda x: x.scatter(1, PLACES[None, :2], 2.0),
        (),
        [aten.scatter],
    ),
    "scatter_add": (
        (1, 4),
        lambda x: x.scatter_add(1, PLACES[None], VECTOR[None, :3]),
        (),
        [aten.scatter_add],
    ),
    "slice_scatter": (
        (1, 4),
        lambda x: MATRIX[:1].slice_scatter(x[:, :2], 1, 1, 3),
        (),
        [aten.slice_scatter],
    ),
    "select_scatter": (
        (1, 4),
        lambda x: x.select_scatter(VECTOR[:1], 1, 2),
        (),
        [aten.select_scatter],
    ),
    "diagonal_scatter": (
        (1, 4),
        lambda x: MATRIX.diagonal_scatter(x[0])[None],
        (),
        [aten.diagonal_scatter],
    ),
    "lerp": ((1, 4), lambda x: torch.lerp(x, VECTOR, 0.3), (), [aten.lerp]),
    "lerp from a constant": ((1, 4), lambda x: torch.lerp(VECTOR, x, VECTOR), (), [aten.lerp]),
    "lerp of two": ((1, 4), lambda x: torch.lerp(x, x.flip(1), 0.3), (), []),
    "addmm": (
        (1, 4),
        lambda x: torch.addmm(VECTOR, x, MATRIX, beta=2, alpha=0.5),
        (),
        [aten.addmm],
    ),
    "addmm of the right factor": (
        (1, 4, 3),
        lambda x: torch.addmm(VECTOR[:3], MATRIX, x[0])[None],
        (),
        [aten.addmm],
    ),
    "addmm of the summand": (
        (1, 4),
        lambda x: torch.addmm(x, VECTOR[None], MATRIX, beta=-2),
        (),
        [aten.addmm],
    ),
    "addmm of two": ((1, 4), lambda x: torch.addmm(x, x, MATRIX, beta=0.5, alpha=-1), (), []),
    "baddbmm": (
        (1, 3, 4),
        lambda x, b: torch.baddbmm(b, x, MATRICES, alpha=2, beta=3),
        (random(1, 3, 5),),
        [aten.baddbmm],
    ),
    "baddbmm of the summand": (
        (1, 4, 5),
        lambda x: torch.baddbmm(x, MATRIX[None], MATRICES),
        (),
        [aten.baddbmm],
    ),
    "addbmm": (
        (1, 3, 4),
        lambda x, b: torch.addbmm(b, x, MATRICES)[None],
        (random(3, 5),),
        [aten.addbmm],
    ),
    "addmv": ((1, 4), lambda x: torch.addmv(VECTOR, MATRIX, x[0])[None], (), [aten.addmv]),
    "addr": ((1, 4), lambda x: torch.addr(MATRIX, x[0], VECTOR)[None], (), [aten.addr]),
    "addcmul": (
        (1, 4),
        lambda x: torch.addcmul(VECTOR, x, MATRIX[:1], value=2),
        (),
        [aten.addcmul],
    ),
    "addcmul of the summand": (
        (1, 4),
        lambda x: torch.addcmul(x, VECTOR, VECTOR),
        (),
        [aten.addcmul],
    ),
    "addcdiv": ((1, 4), lambda x: torch.addcdiv(VECTOR, x, MATRIX[:1]), (), [aten.addcdiv]),
    "bilinear": (
        (1, 4),
        lambda x, w, b: F.bilinear(x, VECTOR[None, :3], w, b),
        (
            random(2, 4, 3),
            random(2),
        ),
        [aten.add],
    ),
    "bilinear without a bias": (
        (1, 4),
        lambda x, w: F.bilinear(x, VECTOR[None, :3], w),
        (random(2, 4, 3),),
        [],
    ),
    "block_diag": ((1, 4), lambda x: torch.block_diag(MATRIX, x)[None], (), [aten.block_diag]),
    "block_diag of zeros": ((1, 4), lambda x: torch.block_diag(0 * MATRIX, x)[None], (), []),
    "diff with a constant": (
        (1, 4),
        lambda x: torch.diff(x, prepend=VECTOR[None, :1]),
        (),
        [aten.cat],
    ),
    "mul": ((1, 4), lambda x: x * 3.0, (), []),
    "mul in place": ((1, 4), lambda x: x.clone().mul_(3.0), (), []),
    "matmul": ((1, 4), lambda x: x @ MATRIX, (), []),
    "div": ((1, 4), lambda x: x / VECTOR, (), []),
    "flatten": ((1, 3, 4), lambda x: x.flatten(1), (), []),
    "mean": ((1, 3, 4), lambda x: x.mean((1, 2)), (), []),
    "avg_pool3d": ((1, 2, 4, 4, 4), lambda x: F.avg_pool3d(x, 2), (), []),
    "reflect": ((1, 2, 4, 4), lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), (), []),
    "interpolate": ((1, 2, 4), lambda x: F.interpolate(x, scale_factor=2, mode="linear"), (), []),
    "fft": ((1, 4), lambda x: torch.fft.rfft(x).real, (), []),
    "fft of a sum": ((1, 4), lambda x: torch.fft.fft(x + (1 + 2j)).imag, (), [aten.add]),
}


def parts(case, moved=()):
    """A case's function of x alone, an x, its line, and what adds; some constants may be moved in
    each run.
    """
    shape, function, constants, adds = CASES[case]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    tracer = Tracer()
    with torch.no_grad(), tracer:
        given = tracer.input(x.clone())
        for c in moved:
            tracer.constant(c)
        y = function(given, *constants)
    return lambda x: function(x, *constants), x, tracer.line(y), adds


@pytest.mark.parametrize("case", CASES)
def test_the_linear_part_and_the_offsets_are_the_function(case):
    function, x, line, _ = parts(case)
    zero = function(torch.zeros_like(x))
    A = linear_part(line)
    close = {"rtol": 1e-13, "atol": 1e-13 if case != "add in float32" else 1e-6}
    torch.testing.assert_close(line(x), function(x), **close)
    torch.testing.assert_close(A(x) + zero, function(x), **close)
    assert not A(torch.zeros_like(x)).any()
    want = columns(lambda e: function(e) - zero, x.shape)
    torch.testing.assert_close(columns(A, x.shape), want, **close)
    torch.testing.assert_close(A(-3 * x), -3 * A(x), **close)


@pytest.mark.parametrize("case", CASES)
def test_only_constants_are_offsets(case):
    _, _, line, adds = parts(case)
    live = Live(line)
    found = [s.function.overloadpacket for s in line.steps if offset(s, live) is not None]
    assert found == adds


@pytest.mark.parametrize("case", [c for c in CASES if CASES[c][3]])
def test_an_offset_is_what_the_function_gives_for_zeros(case):
    _, _, line, _ = parts(case)
    live = Live(line)
    for step in line.steps:
        c = offset(step, live)
        if c is None:
            continue

        def zero(v):
            return torch.zeros(v.shape, dtype=v.dtype) if live(v) else v

        args = [[zero(v) for v in a] if isinstance(a, list) else zero(a) for a in step.args]
        want = step.function(*args, **step.kwargs)
        want = want if isinstance(want, torch.Tensor) else want[0]
        assert c.numel() <= want.numel() and c.dtype == want.dtype
        torch.testing.assert_close(c.expand_as(want), want, rtol=1e-14, atol=0)


# What is added to what must not drown: no subtraction takes it away again.
LARGE = {
    "add": lambda x, c: x + c,
    "conv": lambda x, c: F.conv1d(x[:, None], torch.ones(1, 1, 2, dtype=x.dtype), c[:1]),
    "linear": lambda x, c: F.linear(x, MATRIX, c),
    "batch_norm": lambda x, c: F.batch_norm(x, c, VECTOR**2),
    "addmm": lambda x, c: torch.addmm(c, x, MATRIX, beta=2),
    "lerp": lambda x, c: torch.lerp(c, x, 0.25),
    "where": lambda x, c: torch.where(VECTOR > 0, x, c),
    "baddbmm": lambda x, c: torch.baddbmm(c.expand(1, 1, 4), x[None], MATRIX[None]),
    "addcmul": lambda x, c: torch.addcmul(c, x, VECTOR),
}


@pytest.mark.parametrize("name", LARGE)
def test_what_is_small_does_not_drown_in_a_large_constant(name):
    x = torch.randn(1, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    small, large = (
        linear_part(traced(lambda x: LARGE[name](x, size * (VECTOR + 3)), x)[0])(x)  # noqa: B023
        for size in (0, 1e18)
    )
    assert small.any()
    torch.testing.assert_close(large, small, rtol=1e-14, atol=0)


def test_every_function_of_the_tables_exists_once():
    assert not LINEAR & AFFINE.keys()
    for function in [*LINEAR, *AFFINE]:
        assert function._schema.name, function


# Weights are never moved, decisions may be.
MOVED = [c for c in CASES if not c.startswith(("conv", "batch_norm"))]


@pytest.mark.parametrize("case", MOVED)
def test_constants_that_are_moved_in_each_run_are_constants_too(case):
    constants = [c for c in CASES[case][2] if c.is_floating_point()]
    function, x, line, adds = parts(case, [*constants, VECTOR, MATRIX, MATRICES])
    live = Live(line)
    zero = function(torch.zeros_like(x))
    close = {"rtol": 1e-13, "atol": 1e-13 if case != "add in float32" else 1e-6}
    torch.testing.assert_close(linear_part(line)(x) + zero, function(x), **close)
    found = [s.function.overloadpacket for s in line.steps if offset(s, live) is not None]
    assert found == adds


def test_what_is_made_of_constants_alone_has_no_offset():
    moved, x, tracer = VECTOR.clone(), random(1, 4), Tracer()
    with torch.no_grad(), tracer:
        given = tracer.input(x.clone())
        tracer.constant(moved)
        y = given * (moved + 1)
    line = tracer.line(y)
    live = Live(line)
    made = [aten.alias.default, aten.add.Tensor, aten.mul.Tensor]
    assert [s.function for s in line.steps] == made
    assert [offset(s, live) for s in line.steps] == [None] * 3
    assert torch.equal(linear_part(line)(x), x * (VECTOR + 1))


@pytest.mark.parametrize("number", [4.0, torch.tensor(4.0)])
def test_an_offset_lies_where_its_step_is(number):
    elsewhere = torch.device("meta")
    x = Value(0, (1, 3, 4, 4), torch.float64, elsewhere)
    y = Value(1, x.shape, x.dtype, elsewhere)
    line = Line(x, [Step(aten.add.Tensor, (x, number), {}, (y,))], y)
    assert _at_zero(line.steps[0], Live(line)).device == elsewhere
