"""The operators carry their derivatives themselves: whoever calls torch.ops.linscope has them."""

import pytest
import torch
from operator_cases import NATIVE, TRANSFORMS, cases, tensor
from torch.autograd import gradcheck, gradgradcheck

from linscope_cuda.operators import functions as ops
from linscope_cuda.operators import reference

CASES = cases()


def name_of(transform):
    return transform.__name__


@pytest.mark.parametrize("transform", TRANSFORMS, ids=name_of)
@pytest.mark.parametrize("name", CASES)
def test_equals_the_specification(name, transform):
    operator, specification, x, t = CASES[name]
    got, want = transform(operator, x, t), transform(specification, x, t)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name):
    operator, x = CASES[name].operator, CASES[name].x.clone().requires_grad_()
    assert gradcheck(
        operator,
        (x,),
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )
    assert gradgradcheck(operator, (x,), check_fwd_over_rev=True, check_batched_grad=True)


# Operator, its arguments behind x, and which of them are parameters.
PARAMETERS = {
    "gate_frozen": (tensor((2, 2, 4, 4), 1), 0.5),
    "instance_norm_frozen": tuple(tensor((2, 2), s) for s in (1, 2, 3)),
    "instance_norm_scope": (2, tensor((2,), 1), tensor((2,), 2), 1e-5),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_differentiated_too(name):
    given = PARAMETERS[name]
    places = [k for k, a in enumerate(given) if isinstance(a, torch.Tensor)]

    def of(function):
        def call(x, *moved):
            arguments = dict(enumerate(given)) | dict(zip(places, moved, strict=True))
            result = function(x, *arguments.values())
            return result[0] if isinstance(result, tuple) else result

        return call

    operator, specification = of(getattr(NATIVE, name)), of(getattr(reference, name))
    point = tensor((4, 2, 4, 4), 0), *(given[k] for k in places)
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        got, want = (
            jacobian(f, tuple(range(len(point))))(*point) for f in (operator, specification)
        )
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    inputs = tuple(p.clone().requires_grad_() for p in point)
    assert gradcheck(operator, inputs, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(operator, inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_of_weight_and_bias_have_their_own_dtype(dtype):
    x = tensor((4, 2, 4, 4), 0).to(dtype)
    weight, bias = (tensor((2,), s).to(dtype).requires_grad_() for s in (1, 2))
    y, _, _ = ops.instance_norm_scope(x, 2, weight, bias)
    y.sum().backward()
    assert weight.grad is not None and weight.grad.dtype == dtype
    assert bias.grad is not None and bias.grad.dtype == dtype


def test_decisions_are_constants():
    x = tensor((4, 2, 4, 4), 0).requires_grad_()
    for y, *decisions in (
        NATIVE.relu_scope(x, 2, 0.0, False),
        NATIVE.gate_scope(x, 2, 0),
        NATIVE.instance_norm_scope(x, 2, None, None, 1e-5),
    ):
        assert y.requires_grad and not any(d.requires_grad for d in decisions)


def in_place():
    x0 = tensor((1, 2, 4, 4), 0)
    return {
        "relu_frozen_": (NATIVE.relu_scope(x0, 1, 0.1, False)[1], 0.1, False),
        "clamp_frozen_": (NATIVE.clamp_scope(x0, 1, -0.5, 1.5, False)[1], -0.5, 1.5, False),
    }


@pytest.mark.parametrize("name", in_place())
class TestInPlace:
    def test_what_is_differentiated_is_refused(self, name):
        constants, x = in_place()[name], tensor((3, 2, 4, 4), 1)
        for operator in (getattr(NATIVE, name), getattr(ops, name)):

            def write(x, operator=operator):
                x = x.clone()
                operator(x, *constants)
                return x

            refused = pytest.raises(RuntimeError, match=f"{name}: x is differentiated")
            with refused:
                reverse = x.clone().requires_grad_()
                write(reverse)
            with refused:
                torch.func.jvp(write, (x,), (x,))
            with refused:
                torch.func.grad(lambda x, write=write: write(x).sum())(x)
            with refused, torch.autograd.forward_ad.dual_level():
                operator(torch.autograd.forward_ad.make_dual(x.clone(), x), *constants)
            with torch.no_grad():
                assert torch.equal(write(reverse), getattr(NATIVE, name[:-1])(x, *constants))

    def test_autograd_notices_that_saved_values_are_gone(self, name):
        constants = in_place()[name]
        for operator in (getattr(NATIVE, name), getattr(ops, name)):
            a = tensor((3, 2, 4, 4), 1).requires_grad_()
            saved = tensor((3, 2, 4, 4), 2)
            y = a * saved
            operator(saved, *constants)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                y.sum().backward()

    def test_inference_mode(self, name):
        constants, x = in_place()[name], tensor((3, 2, 4, 4), 1)
        want = getattr(NATIVE, name[:-1])(x, *constants)
        with torch.inference_mode():
            assert torch.equal(getattr(ops, name)(x.clone(), *constants), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_keeps_the_dtype_of_x(dtype):
    x = tensor((4, 2, 4, 4), 0).to(dtype)

    def run():
        at = x.clone().requires_grad_()
        ys = [
            ops.relu_scope(at, 2)[0],
            ops.clamp_scope(at, 2)[0],
            ops.gate_scope(at, 2)[0],
            ops.max_pool2d_scope(at, 2)[0],
            ops.instance_norm_scope(at, 2)[0],
        ]
        statistics = ops.instance_norm_scope(at, 2)[1:]
        loss = torch.stack([y.float().square().sum() for y in ys]).sum()
        return ys, statistics, torch.autograd.grad(loss, at)[0]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        ys, statistics, gradient = run()
    assert all(y.dtype == dtype for y in ys) and gradient.dtype == dtype
    assert all(s.dtype == torch.float32 for s in statistics)
    plain_ys, _, plain_gradient = run()
    torch.testing.assert_close(ys, plain_ys, rtol=0, atol=0)
    torch.testing.assert_close(gradient, plain_gradient, rtol=0, atol=0)


def test_the_bypass_of_plain_calls_is_taken_where_nobody_differentiates_and_only_there():
    """The public function and the operator agree under every way to be watched."""
    bits = ops.relu_scope(tensor((1, 3), 0))[1]
    x, t = tensor((2, 3), 1), tensor((2, 3), 2)
    want = ops.relu_frozen(t, bits)
    with torch.no_grad():
        assert torch.equal(torch.func.jvp(lambda x: ops.relu_frozen(x, bits), (x,), (t,))[1], want)
        assert torch.equal(torch.func.vjp(lambda x: ops.relu_frozen(x, bits), x)[1](t)[0], want)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, t)
            y = ops.relu_frozen(dual, bits)
            assert torch.equal(torch.autograd.forward_ad.unpack_dual(y).tangent, want)
    got = torch.func.grad(lambda x: torch.vmap(lambda _: ops.relu_frozen(x, bits))(t).sum())(x)
    assert torch.equal(got, 2 * ops.relu_frozen(torch.ones_like(x), bits))
