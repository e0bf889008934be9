"""Every operator and its specification as functions of one tensor, to be differentiated."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from linscope_cuda.operators import reference

NATIVE = torch.ops.linscope
REFERENCES = 2
WINDOW = [3, 2], [2, 1], [1, 0], [1, 2]


class Case(NamedTuple):
    """Both functions take x: two references and two probes, away from the units' corners. t is a
    tangent, or another x.
    """

    operator: Callable[[Tensor], Tensor]
    specification: Callable[[Tensor], Tensor]
    x: Tensor
    t: Tensor


def tensor(shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x + 0.3 * x.sign()


def cases() -> dict[str, Case]:
    """torch.ops.linscope and the specifications, on the same arguments."""
    x, other, parameter = tensor((4, 2, 4, 4), 0), tensor((4, 2, 4, 4), 1), tensor((2,), 2)
    x0 = x[:REFERENCES]
    _, bits = reference.relu_scope(x0, 2, 0.1, False)
    _, pieces = reference.clamp_scope(x0, 2, -0.5, 1.5, False)
    _, gate = reference.gate_scope(x0, 2, 0)
    y, winners = reference.max_pool2d_scope(x, 2, *WINDOW, False)
    _, mean, rstd = reference.instance_norm_scope(x0, 2, None, None, 1e-5)
    first = {
        "relu_scope": (2, 0.1, False),
        "relu_frozen": (bits, 0.1, False),
        "clamp_scope": (2, -0.5, 1.5, False),
        "clamp_frozen": (pieces, -0.5, 1.5, False),
        "gate_scope": (2, 0),
        "gate_frozen": (gate, 0.5),
        "max_pool2d_scope": (2, *WINDOW, False),
        "max_pool2d_frozen": (winners, *WINDOW),
        "max_pool2d_frozen_transpose": (winners, [4, 4], *WINDOW),
        "instance_norm_scope": (2, parameter, parameter + 1, 1e-5),
        "instance_norm_frozen": (mean, rstd, mean),
        "gate_scope_backward": (other, 2, 0),
        "instance_norm_scope_backward": (other, mean, rstd, parameter),
    }

    def case(name: str, arguments: tuple) -> Case:
        def of(function: Callable) -> Callable[[Tensor], Tensor]:
            def call(x: Tensor) -> Tensor:
                result = function(x, *arguments)
                return result[0] if isinstance(result, tuple) else result

            return call

        at = y if name == "max_pool2d_frozen_transpose" else x
        return Case(
            of(getattr(NATIVE, name)), of(getattr(reference, name)), at, tensor(tuple(at.shape), 3)
        )

    return {name: case(name, arguments) for name, arguments in first.items()}


def _loss(f: Callable) -> Callable:
    return lambda x: f(x).pow(3).sum()


# What is done with a function of x: each is a function of (f, x, t).


def reverse(f, x, t):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(_loss(f)(x), x)[0]


def dual_numbers(f, x, t):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(x, t))).tangent


def jvp(f, x, t):
    return torch.func.jvp(f, (x,), (t,))[1]


def vjp(f, x, t):
    y, back = torch.func.vjp(f, x)
    return back(y.square())[0]


def grad(f, x, t):
    return torch.func.grad(_loss(f))(x)


def jacrev(f, x, t):
    return torch.func.jacrev(f)(x)


def jacfwd(f, x, t):
    return torch.func.jacfwd(f)(x)


def hessian(f, x, t):
    return torch.func.hessian(_loss(f))(x)


def batched(f, x, t):
    return torch.func.vmap(f, in_dims=1, out_dims=1)(torch.stack([x, t], 1))


def batched_jvp(f, x, t):
    return torch.func.vmap(lambda x, t: jvp(f, x, t))(torch.stack([x, t]), torch.stack([t, x]))


def batched_grad(f, x, t):
    return torch.func.vmap(torch.func.grad(_loss(f)))(torch.stack([x, t]))


def grad_of_batched(f, x, t):
    return grad(torch.func.vmap(f), torch.stack([x, t]), None)


def jvp_of_batched(f, x, t):
    return jvp(torch.func.vmap(f), torch.stack([x, t]), torch.stack([t, x]))


def forward_over_reverse(f, x, t):
    return jvp(torch.func.grad(_loss(f)), x, t)


def reverse_over_forward(f, x, t):
    return torch.func.grad(lambda x: jvp(f, x, t).pow(2).sum())(x)


TRANSFORMS = (
    reverse,
    dual_numbers,
    jvp,
    vjp,
    grad,
    jacrev,
    jacfwd,
    hessian,
    batched,
    batched_jvp,
    batched_grad,
    grad_of_batched,
    jvp_of_batched,
    forward_over_reverse,
    reverse_over_forward,
)
