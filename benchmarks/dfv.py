"""Deep Filter Visualization: the peer that records every nonlinear unit's activation in float32.

A fair one: it records once, replays from memory, and drops offsets in products as the tape does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction

import linscope_cuda as ls
from linscope_cuda.interception import Interception
from linscope_cuda.linear import Linear
from linscope_cuda.rules import Fused


class _Record(Interception):
    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.activations: list[Tensor] = []

    def fused(self, rule: Fused, *args, **kwargs) -> Tensor:
        with DisableTorchFunction():
            self.activations.append(args[0].clone())
            return rule.scope(len(args[0]), *args, **kwargs)[0]


class _Replay(Interception):
    """Each unit decides anew, on the activation that was recorded."""

    def __init__(self, model: nn.Module, activations: list[Tensor]):
        super().__init__(model)
        self.activations = iter(activations)

    def fused(self, rule: Fused, *args, **kwargs) -> Tensor:
        with DisableTorchFunction():
            _, decision = rule.scope(1, next(self.activations), *args[1:], **kwargs)
            return rule.frozen(decision, False, *args, **kwargs)

    def on_linear(self, entry: Linear, func, args, kwargs):
        return entry.without_offsets(func, self.probes, args, kwargs)


class DFV(ls.MatrixFreeOperator):
    """F by recorded activations; F^T is torch's gradient of a replay."""

    def __init__(self, model: nn.Module, x0: Tensor):
        record = _Record(model)
        with torch.no_grad():
            y = record.run(model, x0)
        self.model, self.activations = model, record.activations
        super().__init__(x0.shape[1:], y.shape[1:], x0.dtype, x0.device)

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.activations)

    def _matmat(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return _Replay(self.model, self.activations).run(self.model, x)

    def _rmatmat(self, u: Tensor) -> Tensor:
        probe = self._zeros(len(u), *self.input_shape).requires_grad_()
        with torch.enable_grad():
            y = _Replay(self.model, self.activations).run(self.model, probe)
        return torch.autograd.grad(y, probe, u)[0]
