"""Every way to F v and F^T u that is measured, each as an object with `filter` and `transpose`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

import linscope_cuda as ls

from . import eager
from .dfv import DFV


class System(Protocol):
    """F and F^T, for probes (K, *input_shape) and (K, *output_shape)."""

    def filter(self, x: Tensor) -> Tensor: ...
    def transpose(self, u: Tensor) -> Tensor: ...


class Doubled:
    """The paper's doubled batch in torch functions, eager or compiled; r is computed once."""

    def __init__(self, model: nn.Module, x0: Tensor, compiled: bool = False):
        patched = eager.patched(model)
        self.model = torch.compile(patched, dynamic=False) if compiled else patched
        self.x0 = x0
        self.residual = self._probes(torch.zeros_like(x0))

    @torch.no_grad()
    def _probes(self, x: Tensor) -> Tensor:
        return self.model(torch.cat([self.x0, x]))[1:]

    def filter(self, x: Tensor) -> Tensor:
        return self._probes(x) - self.residual

    def transpose(self, u: Tensor) -> Tensor:
        probe = torch.zeros(len(u), *self.x0.shape[1:]).to(u).requires_grad_()
        return torch.autograd.grad(self.model(torch.cat([self.x0, probe]))[1:], probe, u)[0]


class Autograd:
    """The Jacobian by gradients, x0 run each time: F v is the gradient of F^T u by u."""

    def __init__(self, model: nn.Module, x0: Tensor):
        self.model, self.x0 = model, x0

    def _run(self, samples: int) -> tuple[Tensor, Tensor]:
        x = self.x0.repeat(samples, *[1] * (self.x0.dim() - 1)).requires_grad_()
        return x, self.model(x)

    def filter(self, x: Tensor) -> Tensor:
        at, y = self._run(len(x))
        u = torch.zeros_like(y, requires_grad=True)
        (back,) = torch.autograd.grad(y, at, u, create_graph=True)
        return torch.autograd.grad(back, u, x)[0]

    def transpose(self, u: Tensor) -> Tensor:
        x, y = self._run(len(u))
        return torch.autograd.grad(y, x, u)[0]


class KeptGraph:
    """The Jacobian's transpose from x0's graph, kept with all that it saved (torch.func.vjp)."""

    def __init__(self, model: nn.Module, x0: Tensor):
        self._pull_back = torch.func.vjp(model, x0)[1]

    def filter(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def transpose(self, u: Tensor) -> Tensor:
        if len(u) == 1:
            return self._pull_back(u)[0]
        return torch.func.vmap(self._pull_back)(u[:, None])[0][:, 0]


class Forward:
    """The Jacobian by torch.func.jvp, x0 run along each time."""

    def __init__(self, model: nn.Module, x0: Tensor):
        self.model, self.x0 = model, x0

    @torch.no_grad()
    def filter(self, x: Tensor) -> Tensor:
        at = self.x0.repeat(len(x), *[1] * (x.dim() - 1))
        return torch.func.jvp(self.model, (at,), (x,))[1]

    def transpose(self, u: Tensor) -> Tensor:
        raise NotImplementedError


class Linearized:
    """The Jacobian by torch.func.linearize: x0's part computed once and kept."""

    def __init__(self, model: nn.Module, x0: Tensor):
        _, self._push = torch.func.linearize(model, x0)

    @torch.no_grad()
    def filter(self, x: Tensor) -> Tensor:
        return self._push(x) if len(x) == 1 else torch.func.vmap(self._push)(x[:, None])[:, 0]

    def transpose(self, u: Tensor) -> Tensor:
        raise NotImplementedError


class Way(NamedTuple):
    """How a system is made, for so many probes at once, and the freeze policy that it equals."""

    make: Callable[[nn.Module, Tensor, int], System]
    products: tuple[str, ...] = ("filter", "transpose")
    policy: str = "paper"


def _interpreter(**options: Any) -> Callable[[nn.Module, Tensor, int], ls.LinearInterpreter]:
    def make(model: nn.Module, x0: Tensor, probes: int) -> ls.LinearInterpreter:
        op = ls.LinearInterpreter(model, x0, check=False, **options)
        op.max_batch = probes
        _ = op.residual
        return op

    return make


def _graph(model: nn.Module, x0: Tensor, probes: int) -> System:
    op = _interpreter()(model, x0, probes)
    op.capture(probes)
    return op


def _jax(model: nn.Module, x0: Tensor, probes: int) -> System:
    from . import in_jax

    return in_jax.Linearized(model, x0)


COMPILED = "doubled batch, torch.compile"
GRAPH = "tape, CUDA graph"

WAYS = {
    "tape": Way(_interpreter()),
    GRAPH: Way(_graph),
    "doubled batch": Way(_interpreter(storage="none")),
    "doubled batch, eager torch": Way(lambda model, x0, _: Doubled(model, x0)),
    COMPILED: Way(lambda model, x0, _: Doubled(model, x0, compiled=True)),
    "DFV in memory": Way(lambda model, x0, _: DFV(model, x0)),
    "DFV on disk": Way(lambda model, x0, _: DFV(model, x0, on_disk=True)),
    "tape of Taylor": Way(_interpreter(policy="taylor"), policy="taylor"),
    "autograd": Way(lambda model, x0, _: Autograd(model, x0), policy="taylor"),
    "torch.func.vjp, kept": Way(lambda m, x, _: KeptGraph(m, x), ("transpose",), "taylor"),
    "torch.func.jvp": Way(lambda m, x, _: Forward(m, x), ("filter",), "taylor"),
    "torch.func.linearize": Way(lambda m, x, _: Linearized(m, x), ("filter",), "taylor"),
    "jax.linearize": Way(_jax, policy="taylor"),
}


def applies(way: str, model: nn.Module) -> bool:
    """CUDA graphs are a GPU's; the tape by Taylor is the tape itself where the network is piecewise
    linear.
    """
    if way == GRAPH:
        return next(model.parameters()).is_cuda
    smooth = (nn.InstanceNorm2d, nn.Tanh, nn.SiLU, nn.Sigmoid)
    return way != "tape of Taylor" or any(isinstance(m, smooth) for m in model.modules())
