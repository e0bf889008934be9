"""Arguments in any layout: every tensor of every operator permuted, expanded, strided and in
channels_last memory gives what the dense one gives; channels_last stays what it is, in 4 and 5
dimensions.
"""

from __future__ import annotations

import pytest
import torch
from place import here
from torch import Tensor

from linscope_cuda.operators import functions as ops
from linscope_cuda.operators import reference

pytestmark = pytest.mark.usefixtures("device")

NATIVE = torch.ops.linscope
WINDOW = ([3, 3], [2, 2], [1, 1], [1, 1])


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return here(torch.randn(shape, generator=generator, dtype=torch.float64))


def calls(channels_last: bool = False) -> dict[str, tuple]:
    """Every operator with its arguments, all dense."""
    x, g = normal(4, 3, 6, 4), normal(4, 3, 6, 4, seed=1)
    _, bits = reference.relu_scope(x, 2, 0.0, channels_last)
    _, pieces = reference.clamp_scope(x, 2, -0.5, 0.5, channels_last)
    _, gate = reference.gate_scope(x, 2, 0)
    y, winners = reference.max_pool2d_scope(x, 2, *WINDOW, False)
    weight, bias, planes = normal(3, seed=2), normal(3, seed=3), normal(2, 3, seed=4)
    mean, scale = normal(2, 3, seed=5), normal(2, 3, seed=6)
    return {
        "relu_scope": (x, 2, 0.25, channels_last),
        "relu_frozen": (g, bits, 0.25, channels_last),
        "clamp_scope": (x, 2, -0.5, 0.5, channels_last),
        "clamp_frozen": (g, pieces, -0.5, 0.5, channels_last),
        "gate_scope": (x, 2, 3),
        "gate_frozen": (g, gate, 0.5),
        "gate_scope_backward": (g, x, 2, 3),
        "max_pool2d_scope": (x, 2, *WINDOW, False),
        "max_pool2d_frozen": (g, winners, *WINDOW),
        "max_pool2d_frozen_transpose": (y, winners, [6, 4], *WINDOW),
        "instance_norm_scope": (x, 2, weight, bias, 0.1),
        "instance_norm_frozen": (x, mean, scale, planes),
        "instance_norm_scope_backward": (g, x, mean, scale, weight),
    }


def padded(t: Tensor) -> Tensor:
    """The same values in every second element of memory."""
    return torch.stack([t, t + t], -1)[..., 0]


LAYOUTS = {
    "permuted": lambda t: t.movedim(-1, 0).contiguous().movedim(0, -1),
    "samples inside": lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
    "strided": padded,
    "channels_last": lambda t: (
        t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else padded(t)
    ),
    "expanded over samples": lambda t: t[:1].expand(t.shape),
    "expanded over the last": lambda t: t[..., :1].expand(t.shape),
}


def tensors(value) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", calls())
@pytest.mark.parametrize("channels_last", [False, True])
def test_an_argument_of_any_layout_is_as_good_as_a_dense_one(name, layout, channels_last):
    for at, argument in enumerate(calls(channels_last)[name]):
        if not isinstance(argument, Tensor):
            continue
        args = list(calls(channels_last)[name])
        odd = LAYOUTS[layout](argument)
        args[at] = odd.contiguous()
        want = getattr(reference, name)(*args)
        args[at] = odd
        got = getattr(NATIVE, name)(*args)
        for g, w in zip(tensors(got), tensors(want), strict=True):
            torch.testing.assert_close(g, w, rtol=1e-12, atol=1e-12)


# ---- channels_last of 5 dimensions ----


def volume(samples: int, seed: int = 0) -> Tensor:
    x = normal(samples, 3, 4, 5, 2, seed=seed)
    return x.contiguous(memory_format=torch.channels_last_3d)


def in_3d() -> dict[str, tuple]:
    """Every operator that takes 5 dimensions, with arguments in channels_last_3d."""
    x, g = volume(4), volume(4, seed=1)
    _, bits = reference.relu_scope(x, 2, 0.0, True)
    _, pieces = reference.clamp_scope(x, 2, -0.5, 0.5, True)
    _, gate = reference.gate_scope(x, 2, 0)
    mean, scale, weight = normal(2, 3, seed=5), normal(2, 3, seed=6), normal(3, seed=2)
    return {
        "relu_scope": (x, 2, 0.25, True),
        "relu_frozen": (g, bits, 0.25, True),
        "clamp_scope": (x, 2, -0.5, 0.5, True),
        "clamp_frozen": (g, pieces, -0.5, 0.5, True),
        "gate_scope": (x, 2, 3),
        "gate_frozen": (g, gate, 0.5),
        "gate_scope_backward": (g, x, 2, 3),
        "instance_norm_scope": (x, 2, weight, weight, 0.1),
        "instance_norm_frozen": (x, mean, scale, scale),
        "instance_norm_scope_backward": (g, x, mean, scale, weight),
    }


def is_last_3d(t: Tensor) -> bool:
    return t.is_contiguous(memory_format=torch.channels_last_3d) and not t.is_contiguous()


@pytest.mark.parametrize("name", in_3d())
def test_channels_last_3d_survives(name):
    args = in_3d()[name]
    got = tensors(getattr(NATIVE, name)(*args))
    # The values from contiguous copies; packed bits lie in the order that was asked for.
    plain = [a.contiguous() if isinstance(a, Tensor) else a for a in args]
    want = tensors(getattr(reference, name)(*plain))
    meta = [a.to("meta") if isinstance(a, Tensor) else a for a in args]
    fake = tensors(getattr(NATIVE, name)(*meta))
    spoken = tensors(getattr(reference, name)(*args))
    for g, w, f, r in zip(got, want, fake, spoken, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-12, atol=1e-12)
        assert g.stride() == f.stride() == r.stride()
        assert g.dim() != 5 or is_last_3d(g)


def test_bits_of_a_volume_lie_in_the_order_of_its_memory():
    x, g = volume(1), volume(2, seed=1)
    y, bits = ops.relu_scope(x)
    rows = (x > 0).movedim(1, -1).flatten().to(torch.uint8)  # depth, height, width, channels
    shifts = torch.arange(8, dtype=torch.uint8, device=x.device)
    assert torch.equal((bits[0][:, None] >> shifts & 1).flatten()[: rows.numel()], rows)
    assert is_last_3d(y) and torch.equal(y, x.relu())
    frozen = ops.relu_frozen(g, bits, channels_last=True)
    assert is_last_3d(frozen) and torch.equal(frozen, torch.where(x > 0, g, 0))
    assert torch.equal(ops.relu_frozen(g.contiguous(), bits, channels_last=True), frozen)
    own = g.clone()
    assert ops.relu_frozen_(own, bits, channels_last=True) is own and torch.equal(own, frozen)


def test_gradients_of_a_volume_are_those_of_a_contiguous_one():
    for scope in (
        lambda x: ops.relu_scope(x, 2, 0.1)[0],
        lambda x: ops.clamp_scope(x, 2, -0.5, 0.5)[0],
        lambda x: ops.gate_scope(x, 2, "gelu")[0],
        lambda x: ops.instance_norm_scope(x, 2)[0],
    ):
        grads = []
        for x in (volume(4), volume(4).contiguous()):
            x.requires_grad_()
            scope(x).mul(volume(4, seed=1)).sum().backward()
            grads.append(x.grad)
        torch.testing.assert_close(grads[0], grads[1].contiguous(), rtol=1e-12, atol=1e-12)


def test_channels_last_is_refused_where_torch_has_no_such_format():
    for call in (
        lambda: ops.relu_scope(torch.ones(2, 3, 4), channels_last=True),
        lambda: ops.clamp_frozen(
            torch.ones(1, 4), torch.zeros(1, 1, dtype=torch.uint8), channels_last=True
        ),
    ):
        with pytest.raises(ValueError, match="4 or 5 dimensions"):
            call()
    with pytest.raises(RuntimeError, match="4 or 5 dimensions"):
        NATIVE.relu_scope(torch.ones(2, 3, 4), 1, 0.0, True)


# ---- Weights of norms in half precision ----


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_weight_of_a_norm_keeps_its_digits(dtype):
    x = normal(4, 3, 5, 7).to(dtype)
    weight, bias = here(torch.tensor([1.001, 0.999, 2.003])), here(torch.tensor([100.1, 0.1, -3.3]))
    y, _, _ = ops.instance_norm_scope(x, 2, weight, bias, 1e-5)
    want, _, _ = reference.instance_norm_scope(x.double(), 2, weight.double(), bias.double(), 1e-5)
    assert (y == want.to(dtype)).float().mean() > 0.99  # the others lie between two numbers
    torch.testing.assert_close(y.double(), want, rtol=torch.finfo(dtype).eps / 1.9, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("own", [torch.float64, torch.float32, torch.bfloat16])
def test_gradients_of_a_norms_weight_are_in_its_own_dtype(dtype, own):
    x, g = normal(4, 3, 5, 7).to(dtype), normal(4, 3, 5, 7, seed=1).to(dtype)
    weight, bias = normal(3, seed=2).to(own), normal(3, seed=3).to(own)
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    y, _, _ = ops.instance_norm_scope(leaves[0], 2, *leaves[1:])
    assert y.dtype == dtype
    y.backward(g)
    doubles = [t.double().requires_grad_() for t in (x, weight, bias)]
    ops.instance_norm_scope(doubles[0], 2, *doubles[1:])[0].backward(g.double())
    for leaf, wide in zip(leaves, doubles, strict=True):
        assert leaf.grad.dtype == leaf.dtype
        # Sums in float32, rounded once: not summed or rounded on the way in x's dtype.
        narrow = dtype if leaf is leaves[0] else torch.promote_types(own, torch.float32)
        eps = torch.finfo(own if leaf is not leaves[0] else narrow).eps
        eps = max(eps, torch.finfo(torch.float32).eps)
        torch.testing.assert_close(leaf.grad.double(), wide.grad, rtol=16 * eps, atol=128 * eps)


def test_gates_norms_and_pools_of_another_order_are_contiguous():
    # The whole is as large as that of channels_last, which only the inner strides are not.
    x = normal(2, 3, 4, 6).transpose(2, 3)
    y, gate = NATIVE.gate_scope(x, 1, 0)
    assert y.is_contiguous() and gate.is_contiguous()
    assert NATIVE.instance_norm_scope(x, 1, None, None, 0.1)[0].is_contiguous()
    assert NATIVE.max_pool2d_scope(x, 1, *WINDOW, False)[0].is_contiguous()
    last = x.contiguous(memory_format=torch.channels_last)
    bits = NATIVE.relu_scope(last, 2, 0.0, True)[1]
    with pytest.raises(RuntimeError, match="not dense in the decision"):
        NATIVE.relu_frozen_(x.clone(memory_format=torch.preserve_format), bits, 0.0, True)
