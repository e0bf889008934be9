"""torch.compile: the derivatives of eager mode, no graph break, no recompilation, and graphs that
can be fused.
"""

import subprocess
import sys

import pytest
import torch
from operator_cases import NATIVE, TRANSFORMS, cases, grad, jvp, tensor
from torch import nn
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.utils import run_and_get_code
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import linscope_cuda as ls
from linscope_cuda.operators import functions as ops
from linscope_cuda.operators.table import OPERATORS

CASES = cases()


@pytest.fixture(autouse=True)
def afresh():
    """No graph from a cache of an earlier run."""
    with torch._inductor.config.patch(force_disable_caches=True):
        yield


# Some operators under every transformation, every operator under two. Dynamo does not trace
# torch.autograd.grad; the layers below are differentiated from outside.
TRACED = [t for t in TRANSFORMS if t.__name__ != "reverse"]
DERIVATIVES = [
    *((name, t) for name in ("relu_scope", "instance_norm_scope") for t in TRACED),
    *((name, t) for name in CASES for t in (jvp, grad)),
]


def compiled(function, backend="aot_eager", **options):
    torch._dynamo.reset()
    return torch.compile(function, backend=backend, fullgraph=True, **options)


@pytest.mark.parametrize(
    ("name", "transform"), dict.fromkeys(DERIVATIVES), ids=lambda v: getattr(v, "__name__", v)
)
def test_derivatives_are_those_of_the_specification(name, transform):
    operator, specification, x, t = CASES[name]
    got = compiled(lambda x, t: transform(operator, x, t))(x, t)
    torch.testing.assert_close(got, transform(specification, x, t), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("transform", [jvp, grad])
@pytest.mark.parametrize("name", ["relu_scope", "gate_scope", "instance_norm_scope"])
def test_derivatives_from_inductor(name, transform):
    operator, specification, x, t = CASES[name]
    got = compiled(lambda x, t: transform(operator, x, t), "inductor")(x, t)
    torch.testing.assert_close(got, transform(specification, x, t), rtol=1e-10, atol=1e-10)


def test_public_functions_lose_nothing_either():
    x, t = tensor((4, 2, 4, 4), 0), tensor((4, 2, 4, 4), 1)

    def f(x):
        y = ops.instance_norm_scope(ops.gate_scope(ops.relu_scope(x, 2, 0.1)[0], 2, "silu")[0], 2)
        return ops.max_pool2d_scope(y[0], 2, 2)[0]

    for transform in (jvp, grad):
        got = compiled(lambda x, t, transform=transform: transform(f, x, t))(x, t)
        torch.testing.assert_close(got, transform(f, x, t), rtol=1e-12, atol=1e-12)


LAYERS = {
    "relu": lambda: ls.ReLUScope(references=2),
    "leaky_relu": lambda: ls.LeakyReLUScope(0.2, references=2),
    "prelu": lambda: ls.PReLUScope(4, references=2),
    "relu6": lambda: ls.ReLU6Scope(references=2),
    "hardtanh": lambda: ls.HardtanhScope(-0.5, 0.75, references=2),
    "sigmoid": lambda: ls.SigmoidScope(references=2),
    "tanh": lambda: ls.TanhScope(references=2),
    "silu": lambda: ls.SiLUScope(references=2),
    "gelu": lambda: ls.GELUScope(references=2),
    "max_pool2d": lambda: ls.MaxPool2dScope(2, references=2),
    "instance_norm": lambda: ls.InstanceNorm2dScope(4, affine=True, references=2),
    "instance_norm_tracked": lambda: ls.InstanceNorm2dScope(
        4, affine=True, track_running_stats=True, references=2
    ).eval(),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_train_in_one_graph(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), LAYERS[name](), nn.Conv2d(4, 2, 1)).double()
    x = tensor((4, 3, 8, 8), 0).requires_grad_()
    wanted = [x, *net.parameters()]

    def gradients(run):
        y = run(x)
        return y, torch.autograd.grad(y.square().sum(), wanted)

    torch.testing.assert_close(gradients(compiled(net)), gradients(net), rtol=1e-10, atol=1e-12)


def recordings(x, references):
    """Every operator, the scopes first, for any batch and number of references."""
    y, bits = ops.relu_scope(x, references, 0.1)
    z, pieces = ops.clamp_scope(y, references, -0.5, 1.5)
    v, gate = ops.gate_scope(z, references, "tanh")
    w, mean, rstd = ops.instance_norm_scope(v, references)
    p, winners = ops.max_pool2d_scope(w, references, 2)
    w = ops.relu_frozen(x, bits, 0.1) + ops.clamp_frozen(x, pieces, -0.5, 1.5)
    w = ops.instance_norm_frozen(ops.gate_frozen(w, gate), mean, rstd)
    back = ops.max_pool2d_frozen_transpose(p, winners, (4, 4), 2)
    return w, back, ops.max_pool2d_frozen(w, winners, 2)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_one_graph_serves_every_batch_and_number_of_references(backend):
    run = compiled(recordings, backend, dynamic=True)
    run(tensor((6, 2, 4, 4), 0), 3)
    for references, rounds in ((3, 3), (2, 2), (4, 2), (5, 3)):
        x = tensor((references * rounds, 2, 4, 4), rounds)
        with torch.compiler.set_stance("fail_on_recompile"):
            got = run(x, references)
        torch.testing.assert_close(got, recordings(x, references), rtol=1e-10, atol=1e-10)


def test_training_is_compiled_once_for_every_batch():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), ls.SiLUScope(), ls.ReLUScope(), ls.MaxPool2dScope(2))
    net = net.double()
    run = compiled(net, dynamic=True)
    run(tensor((3, 2, 6, 6), 0)).sum().backward()
    for batch in (2, 5, 8):
        x = tensor((batch, 2, 6, 6), batch)
        with torch.compiler.set_stance("fail_on_recompile"):
            got = torch.autograd.grad(run(x).square().sum(), list(net.parameters()))
        want = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def fusible(x0):
    """Frozen operators between elementwise steps, decided on two references."""
    last = ls.reference.is_channels_last(x0)
    bits, pieces = ops.relu_scope(x0, 2)[1], ops.clamp_scope(x0, 2, -0.3, 0.7)[1]
    gate, (_, mean, rstd) = ops.gate_scope(x0, 2)[1], ops.instance_norm_scope(x0, 2)
    return {
        "relu_frozen": lambda x: ops.relu_frozen(2 * x, bits, 0.1, last) + 1,
        "clamp_frozen": lambda x: ops.clamp_frozen(2 * x, pieces, -0.3, 0.7, last) + 1,
        "gate_frozen": lambda x: ops.gate_frozen(2 * x, gate, 0.5) + 1,
        "instance_norm_frozen": lambda x: ops.instance_norm_frozen(2 * x, mean, rstd, mean) + 1,
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", fusible(tensor((2, 3, 5, 7), 0)))
def test_inductor_fuses_frozen_operators(name, channels_last, dtype):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = tensor((4, 3, 5, 7), 1).to(dtype).contiguous(memory_format=layout)
    frozen = fusible(tensor((2, 3, 5, 7), 0).to(dtype).contiguous(memory_format=layout))[name]
    got, code = run_and_get_code(compiled(frozen, "inductor"), x)
    assert len(code) == 1 and "cpp_fused" in code[0] and "torch.ops.linscope" not in code[0]
    want = frozen(x)
    assert got.stride() == want.stride()
    # Fused, float16 is rounded once, at the end.
    tolerance = 1e-2 if dtype == torch.float16 else 1e-12
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def test_a_decision_may_lie_anywhere_in_memory():
    x0, x = tensor((2, 2, 4, 4), 0), tensor((4, 2, 4, 4), 1)
    _, bits = ops.relu_scope(x0, 2)
    odd = torch.cat([bits.new_zeros(1), bits.flatten()])[1:].view(bits.shape)
    apart = torch.cat([bits, bits], 1)[:, : bits.shape[1]]
    run = compiled(lambda x, bits: ops.relu_frozen(x, bits) + 1, "inductor")
    for decision in (odd, apart):
        assert torch.equal(run(x, decision), ops.relu_frozen(x, bits) + 1)


@pytest.mark.parametrize("shape", [(3, 5, 7), (8,), (2, 3), (4, 16, 2), (1, 1, 33), (3, 2, 5, 4)])
def test_decompositions_are_the_specification(shape):
    x0, x = tensor((2, *shape), 0), tensor((6, *shape), 1)
    for last in {False, len(shape) in (3, 4)}:
        _, bits = ls.reference.relu_scope(x0, 2, 0.1, last)
        _, pieces = ls.reference.clamp_scope(x0, 2, -0.3, 0.7, last)
        for name, arguments in (
            ("relu_frozen", (bits, 0.1, last)),
            ("clamp_frozen", (pieces, -0.3, 0.7, last)),
        ):
            got = ls.decompositions.TABLE[getattr(NATIVE, name).default](x, *arguments)
            want = getattr(ls.reference, name)(x, *arguments)
            assert torch.equal(got, want) and got.stride() == want.stride()


def test_on_cuda_what_inductor_lowers_has_no_frozen_operator_left():
    """Traced with tensors without data: no CUDA device is needed."""
    with FakeTensorMode():
        x0, x = torch.empty(2, 3, 5, 7, device="cuda"), torch.empty(4, 3, 5, 7, device="cuda")
        for frozen in fusible(x0).values():
            graph = make_fx(frozen, decomposition_table=select_decomp_table())(x)
            assert "aten" in graph.code and "linscope" not in graph.code


def test_inductor_fuses_the_backward_pass_of_a_scope():
    x = tensor((4, 2, 4, 4), 0).requires_grad_()

    def f(x):
        return (ops.relu_scope(2 * x, 2, 0.1)[0] + 1).square().sum()

    run = compiled(f, "inductor")
    got, code = run_and_get_code(lambda: torch.autograd.grad(run(x), x)[0])
    forward, backward = code
    assert "torch.ops.linscope.relu_scope" in forward and "torch.ops.linscope" not in backward
    torch.testing.assert_close(got, torch.autograd.grad(f(x), x)[0])


def test_other_compilers_take_the_table():
    x = tensor((4, 3, 5, 7), 1)
    for name, frozen in fusible(tensor((2, 3, 5, 7), 0)).items():
        assert name in make_fx(frozen)(x).code
        graph = make_fx(frozen, decomposition_table=ls.decompositions.TABLE)(x)
        assert "linscope" not in graph.code
        torch.testing.assert_close(graph(x), frozen(x))


@pytest.mark.skipif(torch.__version__ < (2, 12), reason="libtorch's stable ABI has tags since 2.12")
def test_every_operator_is_tagged():
    for name in OPERATORS:
        tags = getattr(NATIVE, name).default.tags
        # Not pointwise: a decision is packed, or has one row for many samples.
        assert torch.Tag.pt2_compliant_tag in tags and torch.Tag.pointwise not in tags


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


SLOW = ("torch._inductor", "torch._dynamo", "torch.distributed.tensor")


def test_importing_the_package_imports_no_compiler():
    code = f"import linscope_cuda, sys; print([m for m in {SLOW} if m in sys.modules])"
    assert python(code).strip() == "[]"


@pytest.mark.parametrize(
    "imports", ["linscope_cuda, torch._dynamo", "torch._dynamo, linscope_cuda"]
)
def test_registration_does_not_depend_on_the_order_of_imports(imports):
    code = f"""
import {imports}, torch._inductor.decomposition
from torch.distributed.tensor import DTensor
rules = DTensor._op_dispatcher.sharding_propagator.op_strategy_funcs
op = torch.ops.linscope.relu_frozen.default
print(op in torch._inductor.decomposition.select_decomp_table(), op in rules)
"""
    assert python(code).split() == ["True", "True"]


SHARDED = """
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from linscope_cuda import ops

dist.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
mesh = init_device_mesh("cpu", (2,))
whole, x0 = torch.randn(8, 3, 4, 4), torch.randn(4, 3, 4, 4)
own = whole[4:]  # what the second of two devices has


def given(local, placement):
    return DTensor.from_local(local.contiguous(), mesh, [placement], run_check=False)


def frozen(references):
    x0_ = x0[:references]
    bits, pieces = ops.relu_scope(x0_, references)[1], ops.clamp_scope(x0_, references)[1]
    return (
        (lambda x, d: ops.relu_frozen(x, d, 0.1), bits),
        (ops.clamp_frozen, pieces),
        (lambda x, d: ops.gate_frozen(x, d, 0.5), ops.gate_scope(x0_, references)[1]),
    )


for references in (1, 2, 4):  # whole rounds on both devices
    for f, decision in frozen(references):
        x = given(own, Shard(0)).requires_grad_()
        y = f(x, given(decision, Replicate()))
        assert y.placements == (Shard(0),)
        assert torch.equal(y.to_local(), f(whole, decision)[4:])
        y.to_local().sum().backward()
        leaf = whole.clone().requires_grad_()
        f(leaf, decision).sum().backward()
        assert torch.equal(x.grad.to_local(), leaf.grad[4:])

for f, decision in frozen(4):  # 6 samples and 2 on each: not whole rounds of 4, so gathered first
    y = f(given(whole[:2], Shard(0)), given(decision, Replicate()))
    assert y.placements == (Shard(0),)  # 4 samples of 4 references: beside their decision
    y = f(given(whole[:6], Shard(0)), given(decision, Replicate()))
    assert y.placements == (Replicate(),) and y.shape == (12, 3, 4, 4)

gate = ops.gate_scope(x0, 4)[1]
y = ops.gate_frozen(given(whole[:, :2], Shard(1)), given(gate[:, :2], Shard(1)))
assert y.placements == (Shard(1),)
assert torch.equal(y.to_local(), ops.gate_frozen(whole, gate)[:, :2])

try:
    ops.relu_scope(given(own, Shard(0)))
except NotImplementedError as error:
    assert "relu_scope" in str(error)
else:
    raise AssertionError("a scope has no sharding rule")
"""


def test_dtensor_splits_samples_in_whole_rounds_of_the_references():
    python(SHARDED)
