"""torch.func.vmap over probes with one recorded decision: one call, on the memory that is there."""

import math
from typing import NamedTuple

import pytest
import torch
from torch.func import jvp, vjp, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from linscope_cuda.operators import functions as ops
from linscope_cuda.operators.table import OPERATORS

NATIVE = torch.ops.linscope
WINDOW = [3, 3], [2, 2], [1, 1], [1, 1]
FROZEN = [name for name, operator in OPERATORS.items() if operator.frozen]
RESULTS = [name for name in FROZEN if not OPERATORS[name].in_place]


def tensor(*shape: int, channels_last: bool = False, seed: int = 0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


class Case(NamedTuple):
    """What follows x: in a call, in its linear part, and in the transpose, which may be another
    operator.
    """

    given: tuple
    linear: tuple
    transposed: tuple
    transpose: str
    shapes: tuple = ((3, 4, 4), (3, 4, 4))  # of a sample, and of its result


def case(name: str, references: int, last: bool) -> Case:
    x0 = tensor(references, 3, 4, 4, channels_last=last)
    if name.startswith("relu"):
        given = (NATIVE.relu_scope(x0, references, 0.1, last)[1], 0.1, last)
        return Case(given, given, given, name)
    if name.startswith("clamp"):
        _, pieces = NATIVE.clamp_scope(x0, references, -0.5, 0.5, last)
        linear = (pieces, 0.0, 0.0, last)
        return Case((pieces, -0.5, 0.5, last), linear, linear, name)
    if name == "gate_frozen":
        return Case((x0, 0.5), (x0, 0.0), (x0, 0.0), name)
    if name == "instance_norm_frozen":
        _, mean, rstd = NATIVE.instance_norm_scope(x0, references, None, None, 1e-5)
        linear = (None, rstd, None)
        return Case((mean, rstd, mean), linear, linear, name)
    _, winners = NATIVE.max_pool2d_scope(x0, references, *WINDOW, False)
    forth, back = (winners, *WINDOW), (winners, [4, 4], *WINDOW)
    shapes = (3, 4, 4), (3, 2, 2)
    if name == "max_pool2d_frozen":
        return Case(forth, forth, back, "max_pool2d_frozen_transpose", shapes)
    assert name == "max_pool2d_frozen_transpose"
    return Case(back, back, forth, "max_pool2d_frozen", shapes[::-1])


def seen(name: str, x: torch.Tensor, arguments: tuple) -> tuple:
    """A call as `Calls` notes it: tensors by where they lie."""
    return name, [a.data_ptr() if isinstance(a, torch.Tensor) else a for a in (x, *arguments)]


class Calls(TorchDispatchMode):
    """What is run below vmap: the operators, and whatever else is no view."""

    def __init__(self):
        super().__init__()
        self.operators, self.others = [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "linscope":
            self.operators.append(seen(function._schema.name.split("::")[1], args[0], args[1:]))
        elif not function.is_view:
            self.others.append(function)
        return function(*args, **(kwargs or {}))


@pytest.fixture(params=[False, True], ids=["contiguous", "channels_last"])
def last(request):
    return request.param


@pytest.fixture(params=[(1, 1), (2, 4)], ids=["one sample", "two references, four samples"])
def batch(request):
    """References, and samples in each element of the batch."""
    return request.param


def probes(samples: int, shape: tuple, last: bool) -> torch.Tensor:
    """(5, samples, ...), each sample in that order of memory."""
    return tensor(5 * samples, *shape, channels_last=last, seed=7).unflatten(0, (5, samples))


@pytest.mark.parametrize("name", RESULTS)
def test_one_call_and_no_copy(name, batch, last):
    references, samples = batch
    given, _, _, _, (shape, _) = case(name, references, last)
    operator, x = getattr(NATIVE, name), probes(samples, shape, last)
    with Calls() as calls:
        got = vmap(lambda x: operator(x, *given))(x)
    assert calls.operators == [seen(name, x, given)] and not calls.others
    want = [operator(sample, *given) for sample in x]
    assert torch.equal(got, torch.stack(want))
    assert ops.is_dense(got.flatten(0, 1), last)


@pytest.mark.parametrize("name", RESULTS)
def test_derivatives_are_the_operator_without_its_constants(name, batch, last):
    references, samples = batch
    given, linear, transposed, transpose, (shape, result) = case(name, references, last)

    def f(x):
        return getattr(NATIVE, name)(x, *given)

    x0, x, u = (probes(samples, s, last) for s in (shape, shape, result))
    x0 = x0[0]
    with Calls() as calls:
        got = vmap(lambda t: jvp(f, (x0,), (t,))[1])(x)
    assert calls.operators == [seen(name, x0, given), seen(name, x, linear)]
    assert not calls.others
    assert torch.equal(got, torch.stack([getattr(NATIVE, name)(t, *linear) for t in x]))
    with Calls() as calls:
        got = vmap(lambda u: vjp(f, x0)[1](u)[0])(u)
    assert calls.operators == [seen(name, x0, given), seen(transpose, u, transposed)]
    assert not calls.others
    assert torch.equal(got, torch.stack([getattr(NATIVE, transpose)(t, *transposed) for t in u]))


@pytest.mark.parametrize("name", [name for name in FROZEN if OPERATORS[name].in_place])
class TestInPlace:
    def test_one_call_and_no_copy(self, name, batch, last):
        references, samples = batch
        given, *_ = case(name, references, last)
        x = probes(samples, (3, 4, 4), last)
        want = [getattr(NATIVE, name[:-1])(sample, *given) for sample in x]
        with Calls() as calls:
            got = vmap(lambda x: getattr(ops, name)(x, *given))(x)
        assert calls.operators == [seen(name, x, given)] and not calls.others
        assert torch.equal(x, torch.stack(want)) and torch.equal(got, x)

    def test_samples_apart_in_memory(self, name, batch, last):
        references, samples = batch
        given, *_ = case(name, references, last)
        apart = probes(samples, (3, 4, 4), last).transpose(0, 1).clone().transpose(0, 1)
        every_second = probes(2 * samples, (3, 4, 4), last)[:, :samples]
        for x in (apart, every_second):
            want = [getattr(NATIVE, name[:-1])(sample, *given) for sample in x]
            vmap(lambda x: getattr(ops, name)(x, *given))(x)
            assert torch.equal(x, torch.stack(want))

    def test_one_decision_for_each(self, name, last):
        (decision, *constants), *_ = case(name, 5, last)
        x = probes(1, (3, 4, 4), last)
        pairs = zip(x, decision[:, None], strict=True)
        want = torch.stack([getattr(NATIVE, name[:-1])(t, d, *constants) for t, d in pairs])

        def write(x, d):
            return getattr(ops, name)(x, d, *constants)

        with pytest.raises(RuntimeError, match=f"{name}: x is not batched as its decision is"):
            vmap(write, (None, 0))(x[0].clone(), decision[:, None])
        vmap(write)(x, decision[:, None])
        assert torch.equal(x, want)


@pytest.mark.parametrize("name", RESULTS)
def test_any_dimension_may_be_the_batch(name):
    given, _, _, _, (shape, _) = case(name, 2, False)
    x = probes(4, shape, False)
    want = torch.stack([getattr(NATIVE, name)(sample, *given) for sample in x])
    for dim in range(x.dim()):
        moved = x.movedim(0, dim).contiguous()
        got = vmap(lambda x: getattr(NATIVE, name)(x, *given), in_dims=dim)(moved)
        assert torch.equal(got, want)
    nested = vmap(vmap(lambda x: getattr(NATIVE, name)(x, *given)))(torch.stack([x, -x]))
    assert torch.equal(nested[0], want)


@pytest.mark.parametrize("name", RESULTS)
def test_no_samples(name):
    given, _, _, _, (shape, result) = case(name, 1, False)
    got = vmap(lambda x: getattr(NATIVE, name)(x, *given))(torch.empty(5, 0, *shape).double())
    assert got.shape == (5, 0, *result) and math.prod(got.shape) == 0
