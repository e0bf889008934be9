"""Every operator against its specification, on every dtype, memory format and awkward size."""

import math

import pytest
import torch
import torch.nn.functional as F
from place import here
from torch.autograd import gradcheck, gradgradcheck

from linscope_cuda.operators import functions as ops
from linscope_cuda.operators import reference
from linscope_cuda.operators.table import OPERATORS

pytestmark = pytest.mark.usefixtures("device")

NATIVE = torch.ops.linscope
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]

# (samples, channels, height, width) and references: one pixel, odd, larger than a block of threads,
# no channels, no pixels, several references with several probes.
SHAPES = {
    "one pixel": ((2, 3, 1, 1), 1),
    "odd": ((4, 3, 5, 7), 2),
    "vectors": ((3, 16, 8, 8), 1),
    "unaligned samples": ((6, 5, 9, 9), 3),
    "larger than a block": ((2, 33, 40, 40), 1),
    "recording": ((2, 3, 6, 6), 2),
    "no channels": ((2, 0, 4, 4), 1),
    "no pixels": ((2, 3, 0, 4), 1),
}

# kernel, stride, padding, dilation
WINDOWS = {
    "pixel": ([1, 1], [1, 1], [0, 0], [1, 1]),
    "overlapping": ([3, 3], [2, 2], [1, 1], [1, 1]),
    "dilated": ([2, 3], [3, 1], [1, 1], [2, 1]),
    "gaps": ([2, 2], [3, 4], [0, 1], [1, 1]),
}


def tensor(shape, dtype=torch.float64, channels_last=False, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = here((2 * x).to(dtype))
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def special(shape, dtype, seed=0):
    """Values that a careless comparison gets wrong, many of them equal."""
    values = torch.tensor(
        [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, 1.0, -1.0, 6.0, 1e-30], dtype=dtype
    )
    pick = torch.randint(len(values), shape, generator=torch.Generator().manual_seed(seed))
    return here(values[pick])


def check(name, *args, equal=False):
    """The compiled operator's result, after comparing all of it with its reference's."""
    got, want = getattr(NATIVE, name)(*args), getattr(reference, name)(*args)
    for g, w in zip(_tuple(got), _tuple(want), strict=True):
        assert (g.shape, g.dtype) == (w.shape, w.dtype)
        assert g.stride() == w.stride() or g.numel() == 0
        if equal or not g.dtype.is_floating_point:
            torch.testing.assert_close(g, w, rtol=0, atol=0, equal_nan=True)
        else:
            torch.testing.assert_close(g, w, **_tolerance(g, args[0]), equal_nan=True)
    return got


def _tuple(value):
    return value if isinstance(value, tuple) else (value,)


def _tolerance(result, x):
    # Sums over a plane of float32 keep about 1e-6 of their terms; narrower types round them once.
    eps = torch.finfo(result.dtype).eps
    terms = max(1, math.prod(x.shape[2:])) ** 0.5 * 4
    return {"rtol": 16 * eps, "atol": 16 * eps * terms}


@pytest.fixture(params=SHAPES, ids=list(SHAPES))
def shape_references(request):
    return SHAPES[request.param]


@pytest.fixture(params=[False, True], ids=["contiguous", "channels_last"])
def channels_last(request):
    return request.param


@pytest.fixture(params=DTYPES, ids=lambda d: str(d).removeprefix("torch."))
def dtype(request):
    return request.param


class TestAgainstReference:
    def test_relu(self, shape_references, dtype, channels_last):
        shape, references = shape_references
        x = tensor(shape, dtype, channels_last)
        last = reference.is_channels_last(x)
        for slope in (0.0, 0.1):
            _, decision = check("relu_scope", x, references, slope, last, equal=slope == 0)
            check("relu_frozen", x.flip(0), decision, slope, last, equal=slope == 0)

    def test_clamp(self, shape_references, dtype, channels_last):
        shape, references = shape_references
        x = tensor(shape, dtype, channels_last)
        last = reference.is_channels_last(x)
        _, decision = check("clamp_scope", x, references, -0.5, 1.5, last, equal=True)
        check("clamp_frozen", x.flip(0), decision, -0.5, 1.5, last, equal=True)
        check("clamp_frozen", x.flip(0), decision, 0.0, 0.0, last, equal=True)

    @pytest.mark.parametrize("kind", ops.GATES)
    def test_gate(self, kind, shape_references, dtype, channels_last):
        shape, references = shape_references
        x = tensor(shape, dtype, channels_last)
        number = ops.GATES.index(kind)
        _, gate = check("gate_scope", x, references, number)
        check("gate_frozen", x.flip(0), gate, 0.5)
        check("gate_scope_backward", x.flip(0), x, references, number)

    @pytest.mark.parametrize("ceil_mode", [False, True])
    @pytest.mark.parametrize("window", WINDOWS.values(), ids=list(WINDOWS))
    def test_max_pool2d(self, window, ceil_mode, shape_references, dtype, channels_last):
        shape, references = shape_references
        if 0 in shape or (window is WINDOWS["dilated"] and shape[2:] == (1, 1)):
            words = "holds no pixel" if 0 in shape else "without any pixel"
            with pytest.raises(ValueError, match=words):
                ops.max_pool2d_scope(tensor(shape), references, *window, ceil_mode)
            return
        if window is WINDOWS["gaps"] and shape[2:] == (1, 1) and not ceil_mode:
            with pytest.raises(ValueError, match="without any pixel"):
                ops.max_pool2d_scope(tensor(shape), references, *window)
            return
        x = tensor(shape, dtype, channels_last)
        y, decision = check("max_pool2d_scope", x, references, *window, ceil_mode, equal=True)
        torch.testing.assert_close(
            y[:references], F.max_pool2d(x[:references], *window, ceil_mode), rtol=0, atol=0
        )
        check("max_pool2d_frozen", x.flip(0), decision, *window, equal=True)
        check("max_pool2d_frozen_transpose", y.flip(0), decision, list(shape[2:]), *window)

    @pytest.mark.parametrize("affine", [False, True])
    def test_instance_norm(self, affine, shape_references, dtype, channels_last):
        shape, references = shape_references
        x = tensor(shape, dtype, channels_last)
        wide = reference.wide_dtype(dtype)
        weight, bias = (tensor(shape[1:2], wide, seed=s) for s in (1, 2))
        weight, bias = (weight, bias) if affine else (None, None)
        # Values near a plane's mean are differences: their digits are those of the plane.
        _, mean, rstd = check("instance_norm_scope", x, references, weight, bias, 1e-5)
        check("instance_norm_frozen", x.flip(0), mean, rstd, mean)
        check("instance_norm_frozen", x.flip(0), None, rstd, None)
        check("instance_norm_scope_backward", x.flip(0), x, mean, rstd, weight)

    def test_instance_norm_keeps_the_digits_of_a_distant_mean(self, channels_last):
        # Variance 1 around a mean of 3000: sums of squares would lose it in float32.
        x = tensor((2, 4, 33, 31), torch.float64, channels_last) / 2 + 3000
        _, _, want = reference.instance_norm_scope(x, 1, None, None, 0.0)
        _, mean, rstd = NATIVE.instance_norm_scope(x.float(), 1, None, None, 0.0)
        torch.testing.assert_close(rstd, want.float(), rtol=2e-4, atol=0)
        torch.testing.assert_close(mean.double(), x[:1].mean((2, 3)), rtol=1e-6, atol=0)

    def test_instance_norm_of_any_dimension(self):
        for shape in [(3, 4), (2, 4, 9), (2, 3, 4, 5, 6)]:
            x = tensor(shape)
            _, mean, rstd = check("instance_norm_scope", x, 1, None, None, 1e-5)
            check("instance_norm_scope_backward", x.flip(0), x, mean, rstd, None)

    def test_special_values(self, dtype, channels_last):
        x = special((4, 7, 6, 5), dtype)
        if channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        last = reference.is_channels_last(x)
        y, decision = check("relu_scope", x, 2, 0.0, last, equal=True)
        torch.testing.assert_close(y[:2], x[:2].relu(), equal_nan=True)
        check("relu_frozen", x.flip(0), decision, 0.0, last, equal=True)
        y, decision = check("clamp_scope", x, 2, 0.0, 6.0, last, equal=True)
        torch.testing.assert_close(y[:2], F.relu6(x[:2]), equal_nan=True)
        y, winners = check("max_pool2d_scope", x, 2, *WINDOWS["overlapping"], False, equal=True)
        want, at = F.max_pool2d(x[:2], 3, 2, 1, return_indices=True)
        torch.testing.assert_close(y[:2], want, equal_nan=True)
        sources = reference.source_pixels(winners, 5, *WINDOWS["overlapping"])
        assert torch.equal(sources, at)

    def test_windows_of_more_than_256_pixels(self):
        x = tensor((2, 2, 20, 21))
        window = ([17, 18], [1, 2], [0, 0], [1, 1])
        y, decision = check("max_pool2d_scope", x, 1, *window, False, equal=True)
        assert decision.dtype == torch.int32
        check("max_pool2d_frozen_transpose", y, decision, [20, 21], *window)

    def test_a_strided_input_is_as_good_as_a_dense_one(self):
        x = tensor((4, 6, 9, 10))[::2, 1:4, :, ::3]
        y, decision = ops.relu_scope(x)
        want, packed = ops.relu_scope(x.contiguous())
        assert torch.equal(y, want) and torch.equal(decision, packed)
        assert torch.equal(
            ops.max_pool2d_scope(x, 1, 2)[0], ops.max_pool2d_scope(x.contiguous(), 1, 2)[0]
        )


class TestMeaning:
    """Equations 2 and 3, written out by hand."""

    def test_relu_by_hand(self):
        x0 = here(torch.tensor([[1.0, -1.0, 0.0, -0.0, math.nan, math.inf]]))
        x1 = here(torch.tensor([[7.0, 7.0, 7.0, math.inf, 7.0, -7.0]]))
        y, decision = ops.relu_scope(torch.cat([x0, x1]))
        want = here(torch.tensor([[1.0, 0.0, 0.0, 0.0, math.nan, math.inf], [7, 0, 0, 0, 7, -7]]))
        torch.testing.assert_close(y, want, equal_nan=True)
        assert decision.tolist() == [[0b110001]]

    def test_clamp_by_hand(self):
        x = here(torch.tensor([[-1.0, 0.0, 3.0, 6.0, 9.0], [2.0, 2.0, 2.0, 2.0, 2.0]]))
        y, decision = ops.clamp_scope(x)
        assert y.tolist() == [[0, 0, 3, 6, 6], [0, 0, 2, 6, 6]]
        assert decision.tolist() == [[0b10010000, 0b10]]
        assert ops.clamp_frozen(x[1:], decision, 0, 0).tolist() == [[0, 0, 2, 0, 0]]

    @pytest.mark.parametrize(
        ("kind", "h"),
        {
            "sigmoid": torch.sigmoid,
            "tanh": torch.tanh,
            "silu": F.silu,
            "gelu": F.gelu,
            "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
            "sigmoid_mask": torch.sigmoid,
        }.items(),
    )
    def test_gates_are_the_torch_function_and_equation_3_holds(self, kind, h):
        x0 = torch.cat(
            [here(torch.linspace(-30, 30, 601)), here(torch.logspace(-300, 0, 301))]
        ).double()
        x0 = x0[x0 != 0] if kind == "sigmoid_mask" else x0
        y, _ = ops.gate_scope(torch.stack([x0, x0]), kind=kind)
        torch.testing.assert_close(y[0], h(x0), rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(y[1], h(x0), rtol=1e-13, atol=1e-14)

    def test_sigmoid_at_zero(self):
        y, gate = ops.gate_scope(here(torch.tensor([[0.0], [2.0]])))
        assert (y.tolist(), gate.tolist()) == ([[0.5], [1.0]], [[0.25]])

    @pytest.mark.parametrize("kind", ops.GATES)
    def test_the_slope_of_a_gate_keeps_its_digits_near_zero(self, kind):
        x0 = here(torch.tensor([1e-9, 1e-4, 0.1, 0.4999, 0.5001, 1.0, 5.0], dtype=torch.float64))
        gate = reference.GATES[kind]
        h = 1e-6 * x0
        numeric = (gate.gate(x0 + h) - gate.gate(x0 - h)) / (2 * h)
        grad = torch.autograd.functional.jvp(gate.gate, x0, torch.ones_like(x0))[1]
        got = gate.gate_slope(x0)
        torch.testing.assert_close(got[2:], numeric[2:], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(got[1:], grad[1:], rtol=1e-6, atol=1e-8)

    def test_probes_belong_to_references_in_turn(self):
        x = here(torch.tensor([[1.0], [-1.0], [10.0], [20.0], [30.0], [40.0]]))
        y, _ = ops.relu_scope(x, references=2)
        assert y.flatten().tolist() == [1, 0, 10, 0, 30, 0]

    def test_max_pool_ties_take_the_first_pixel(self):
        x = here(torch.tensor([[[[1.0, 1.0], [1.0, 1.0]]], [[[1.0, 2.0], [3.0, 4.0]]]]))
        assert ops.max_pool2d_scope(x)[0].flatten().tolist() == [1, 1]

    def test_transposes(self):
        x, u = tensor((3, 4, 9, 9)), tensor((3, 4, 5, 5), seed=1)
        _, decision = ops.max_pool2d_scope(tensor((1, 4, 9, 9), seed=2), 1, 3, 2, 1)
        forth = (u * ops.max_pool2d_frozen(x, decision, 3, 2, 1)).sum()
        back = (x * ops.max_pool2d_frozen_transpose(u, decision, (9, 9), 3, 2, 1)).sum()
        torch.testing.assert_close(forth, back, rtol=1e-13, atol=0)

    def test_instance_norm_by_hand(self):
        x0 = here(torch.tensor([1.0, 2.0, 3.0, 6.0])).view(1, 1, 2, 2)
        x1 = here(torch.tensor([0.0, 3.0, 5.0, 7.0])).view(1, 1, 2, 2)
        y, mean, rstd = ops.instance_norm_scope(
            torch.cat([x0, x1]), 1, here(torch.tensor([2.0])), here(torch.tensor([1.0])), eps=0.5
        )
        assert (mean.item(), rstd.item()) == (3.0, 0.5)
        assert y.flatten().tolist() == [-1, 0, 1, 4, -2, 1, 3, 5]
        torch.testing.assert_close(y[:1], F.instance_norm(x0, None, None, *_wb(), eps=0.5))


def _wb():
    return here(torch.tensor([2.0])), here(torch.tensor([1.0]))


def scopes(references=2):
    """Every scope as a function of the doubled batch alone."""
    weight, bias = tensor((3,), seed=8), tensor((3,), seed=9)
    gates = {k: lambda x, k=k: ops.gate_scope(x, references, k)[0] for k in ops.GATES}
    return {
        "relu": lambda x: ops.relu_scope(x, references)[0],
        "leaky_relu": lambda x: ops.relu_scope(x, references, 0.1)[0],
        "clamp": lambda x: ops.clamp_scope(x, references, -0.5, 1.5)[0],
        **gates,
        "max_pool2d": lambda x: ops.max_pool2d_scope(x, references, 3, 2, 1)[0],
        "instance_norm": lambda x: ops.instance_norm_scope(x, references, weight, bias)[0],
    }


def references_of():
    """The same scopes, from the specification."""
    weight, bias = tensor((3,), seed=8), tensor((3,), seed=9)
    window = WINDOWS["overlapping"]
    gates = {k: lambda x, i=i: reference.gate_scope(x, 2, i)[0] for i, k in enumerate(ops.GATES)}
    return {
        "relu": lambda x: reference.relu_scope(x, 2, 0.0, False)[0],
        "leaky_relu": lambda x: reference.relu_scope(x, 2, 0.1, False)[0],
        "clamp": lambda x: reference.clamp_scope(x, 2, -0.5, 1.5, False)[0],
        **gates,
        "max_pool2d": lambda x: reference.max_pool2d_scope(x, 2, *window, False)[0],
        "instance_norm": lambda x: reference.instance_norm_scope(x, 2, weight, bias, 1e-5)[0],
    }


def doubled(seed=0):
    """A doubled batch away from the units' corners, where a difference quotient means nothing."""
    x = tensor((4, 3, 4, 4), seed=seed)
    return x + 0.3 * x.sign()


@pytest.mark.parametrize("name", scopes())
class TestDerivatives:
    def test_gradcheck(self, name):
        x = doubled().requires_grad_()
        assert gradcheck(
            scopes()[name],
            (x,),
            check_forward_ad=True,
            check_batched_grad=True,
            check_batched_forward_grad=True,
        )
        assert gradgradcheck(scopes()[name], (x,))

    def test_torch_func(self, name):
        scope, plain = scopes()[name], references_of()[name]
        x, t = doubled(), tensor((4, 3, 4, 4), seed=5)
        y, back = torch.func.vjp(scope, x)
        _, want_back = torch.func.vjp(plain, x)
        u = tensor(y.shape, seed=6)
        torch.testing.assert_close(back(u)[0], want_back(u)[0])
        torch.testing.assert_close(
            torch.func.jvp(scope, (x,), (t,))[1], torch.func.jvp(plain, (x,), (t,))[1]
        )
        stacked = torch.stack([doubled(s) for s in range(3)], dim=2)
        want = torch.stack([scope(doubled(s)) for s in range(3)], dim=1)
        torch.testing.assert_close(torch.func.vmap(scope, in_dims=2, out_dims=1)(stacked), want)
        torch.testing.assert_close(torch.func.jacrev(scope)(x), torch.func.jacfwd(scope)(x))

    def test_compiles_to_one_graph(self, name):
        x = doubled()
        compiled = torch.compile(scopes()[name], fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), scopes()[name](x))


def frozen():
    """Every frozen operator with a recorded decision of 2 references, as a function of x alone."""
    x0 = doubled()[:2]
    bits, pieces = ops.relu_scope(x0, 2)[1], ops.clamp_scope(x0, 2, -0.5, 1.5)[1]
    gate, winners = ops.gate_scope(x0, 2)[1], ops.max_pool2d_scope(x0, 2, 3, 2, 1)[1]
    _, mean, rstd = ops.instance_norm_scope(x0, 2)
    return {
        "relu": lambda x: ops.relu_frozen(x, bits, 0.1),
        "clamp": lambda x: ops.clamp_frozen(x, pieces, -0.5, 1.5),
        "gate": lambda x: ops.gate_frozen(x, gate, 0.5),
        "max_pool2d": lambda x: ops.max_pool2d_frozen(x, winners, 3, 2, 1),
        "max_pool2d_transpose": lambda x: ops.max_pool2d_frozen_transpose(
            x[:, :, :2, :2], winners, (4, 4), 3, 2, 1
        ),
        "instance_norm": lambda x: ops.instance_norm_frozen(x, mean, rstd, mean),
    }


@pytest.mark.parametrize("name", frozen())
class TestFrozen:
    def test_gradcheck(self, name):
        x = doubled().requires_grad_()
        assert gradcheck(
            frozen()[name],
            (x,),
            check_forward_ad=True,
            check_batched_grad=True,
            check_batched_forward_grad=True,
        )
        assert gradgradcheck(frozen()[name], (x,))

    def test_affine_in_x(self, name):
        f, x, z = frozen()[name], doubled(1), doubled(2)
        torch.testing.assert_close(f(2 * x - z), 2 * f(x) - f(z))

    def test_vmap_over_x(self, name):
        f = frozen()[name]
        want = torch.stack([f(doubled(s)) for s in range(3)])
        stacked = torch.stack([doubled(s) for s in range(3)])
        torch.testing.assert_close(torch.func.vmap(f)(stacked), want)

    def test_no_samples(self, name):
        assert frozen()[name](doubled()[:0]).shape[0] == 0


def test_vmap_over_decisions_and_weights():
    decisions = torch.stack([ops.relu_scope(doubled(s)[:2], 2)[1] for s in range(3)], dim=1)
    x = doubled(4)
    got = torch.func.vmap(lambda d: ops.relu_frozen(x, d), in_dims=1)(decisions)
    want = torch.stack([ops.relu_frozen(x, decisions[:, s]) for s in range(3)])
    assert torch.equal(got, want)
    weights = tensor((5, 3))
    got = torch.func.vmap(lambda w: ops.instance_norm_scope(x, 2, w)[0])(weights)
    want = torch.stack([ops.instance_norm_scope(x, 2, w)[0] for w in weights])
    torch.testing.assert_close(got, want)


def test_instance_norm_is_differentiable_in_weight_and_bias():
    weight, bias = tensor((3,), seed=1).requires_grad_(), tensor((3,), seed=2).requires_grad_()
    x = doubled().requires_grad_()
    assert gradcheck(
        lambda *a: ops.instance_norm_scope(a[0], 2, *a[1:])[0],
        (x, weight, bias),
        check_forward_ad=True,
    )
    _, mean, rstd = (t.detach() for t in ops.instance_norm_scope(x, 2))
    assert gradcheck(
        ops.instance_norm_frozen,
        (x, *(t.clone().requires_grad_() for t in (mean, rstd, mean))),
        check_forward_ad=True,
    )


def _samples():
    x, last = doubled(), doubled().contiguous(memory_format=torch.channels_last)
    for batch, flag in ((x, False), (last, True)):
        _, bits = NATIVE.relu_scope(batch, 2, 0.1, flag)
        _, pieces = NATIVE.clamp_scope(batch, 2, -0.5, 1.5, flag)
        _, gate = NATIVE.gate_scope(batch, 2, 0)
        window = WINDOWS["overlapping"]
        y, winners = NATIVE.max_pool2d_scope(batch, 2, *window, False)
        weight = tensor((3,))
        _, mean, rstd = NATIVE.instance_norm_scope(batch, 2, weight, weight, 1e-5)
        yield from (
            ("relu_scope", (batch, 2, 0.1, flag)),
            ("relu_frozen", (batch, bits, 0.1, flag)),
            ("clamp_scope", (batch, 2, -0.5, 1.5, flag)),
            ("clamp_frozen", (batch, pieces, -0.5, 1.5, flag)),
            ("gate_scope", (batch, 2, 0)),
            ("gate_frozen", (batch, gate, 0.5)),
            ("gate_scope_backward", (batch, batch, 2, 0)),
            ("max_pool2d_scope", (batch, 2, *window, True)),
            ("max_pool2d_frozen", (batch, winners, *window)),
            ("max_pool2d_frozen_transpose", (y, winners, [4, 4], *window)),
            ("instance_norm_scope", (batch, 2, weight, None, 1e-5)),
            ("instance_norm_frozen", (batch, mean, rstd, None)),
            ("instance_norm_scope_backward", (batch, batch, mean, rstd, weight)),
        )


@pytest.mark.parametrize("number", [pytest.param(k, id=n) for k, (n, _) in enumerate(_samples())])
def test_opcheck(number):
    name, args = list(_samples())[number]
    torch.library.opcheck(getattr(NATIVE, name).default, args)


def test_schemas_which_files_and_exported_graphs_rely_on():
    for schema in (
        "relu_scope(Tensor x, SymInt references, float negative_slope, bool channels_last) -> "
        "(Tensor, Tensor)",
        "relu_frozen_(Tensor(a0!) x, Tensor decision, float negative_slope, bool channels_last) -> "
        "()",
        "max_pool2d_frozen_transpose(Tensor u, Tensor decision, SymInt[] size, SymInt[] kernel, "
        "SymInt[] stride, SymInt[] padding, SymInt[] dilation) -> Tensor",
        "instance_norm_frozen(Tensor x, Tensor? mean, Tensor scale, Tensor? shift) -> Tensor",
    ):
        name = schema.partition("(")[0]
        assert str(OPERATORS[name].overload._schema) == f"linscope::{schema}"
    for operator in OPERATORS.values():
        assert torch.Tag.pt2_compliant_tag in operator.overload.tags


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ops.relu_scope(torch.ones(3, 2), 2), ValueError, "3 samples"),
        (lambda: ops.relu_scope(torch.ones(3, 2), 0), ValueError, "0 references"),
        (lambda: ops.relu_scope(torch.ones(0, 2)), ValueError, "no reference"),
        (lambda: ops.relu_scope(torch.ones(2, 2).int()), TypeError, "int32"),
        (lambda: ops.clamp_scope(torch.ones(2, 2), 1, 2.0, 1.0), ValueError, "2.0 and 1.0"),
        (lambda: ops.gate_scope(torch.ones(2, 2), 1, "swish"), ValueError, "'swish'"),
        (lambda: ops.max_pool2d_scope(torch.ones(2, 2), 1), ValueError, "4 dimensions"),
        (lambda: ops.max_pool2d_scope(torch.ones(1, 1, 2, 2), 1, 3), ValueError, "(2, 2)"),
        (lambda: ops.max_pool2d_scope(torch.ones(1, 1, 9, 9), 1, 2, 1, 2), ValueError, "padding"),
        (
            lambda: ops.max_pool2d_scope(torch.ones(1, 1, 1, 1), 1, (2, 1), 1, (1, 0), (2, 1)),
            ValueError,
            "without any pixel",
        ),
        (
            lambda: ops.instance_norm_scope(torch.ones(2, 3, 4), 1, torch.ones(4)),
            ValueError,
            "weight must be",
        ),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


def test_decisions_of_another_shape_are_refused():
    _, decision = ops.relu_scope(torch.ones(1, 100))
    with pytest.raises(ValueError, match="does not belong"):
        ops.relu_frozen(torch.ones(1, 200), decision)


def _elsewhere(shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: ops.relu_frozen(x, _elsewhere((1, 4), torch.uint8)), "decision"),
        (lambda x: ops.clamp_frozen(x, _elsewhere((1, 8), torch.uint8)), "decision"),
        (lambda x: ops.gate_frozen(x, _elsewhere((1, 2, 4, 4))), "gate"),
        (lambda x: ops.max_pool2d_frozen(x, _elsewhere((1, 2, 2, 2), torch.uint8)), "decision"),
        (
            lambda x: ops.max_pool2d_frozen_transpose(
                x, _elsewhere((1, 2, 4, 4), torch.uint8), (8, 8)
            ),
            "decision",
        ),
        (lambda x: ops.instance_norm_scope(x, 1, _elsewhere(2)), "weight"),
        (lambda x: ops.instance_norm_scope(x, 1, None, _elsewhere(2)), "bias"),
        (lambda x: ops.instance_norm_frozen(x, None, _elsewhere((1, 2))), "scale"),
    ],
)
def test_tensors_on_different_devices_are_refused(call, name):
    with pytest.raises(ValueError, match=f"x is on cpu, {name} on meta"):
        call(torch.ones(1, 2, 4, 4))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("samples", [1, 3])
def test_in_place_is_the_same_in_the_inputs_memory(channels_last, samples):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x0 = here(torch.randn(1, 5, 7, 9)).contiguous(memory_format=layout)
    x = here(torch.randn(samples, 5, 7, 9)).contiguous(memory_format=layout)
    _, open = ops.relu_scope(x0)
    _, piece = ops.clamp_scope(x0, 1, -0.5, 0.5)
    for frozen, frozen_, arguments in (
        (ops.relu_frozen, ops.relu_frozen_, (open, 0.2, channels_last)),
        (ops.clamp_frozen, ops.clamp_frozen_, (piece, -0.5, 0.5, channels_last)),
    ):
        want, own = frozen(x, *arguments), x.clone()
        assert frozen_(own, *arguments) is own and torch.equal(own, want)
        with pytest.raises((RuntimeError, ValueError), match=r"dense|belong"):
            frozen_(here(torch.randn(9, 7, 5, samples)).permute(3, 2, 1, 0), *arguments)
        torch.library.opcheck(
            getattr(torch.ops.linscope, frozen_.__name__), (x.clone(), *arguments)
        )
