"""Deep Filter Visualization: the peer that records every nonlinear unit's activation in float32.

A fair one: it records once, and takes its answer to 0 once. The record is kept in memory or in
files, which are mapped into memory when a product comes to them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction

import linscope_cuda as ls
from linscope_cuda.capture.interception import Interception
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

    def __init__(self, model: nn.Module, activations: Iterable[Tensor]):
        super().__init__(model)
        self.activations = iter(activations)

    def fused(self, rule: Fused, *args, **kwargs) -> Tensor:
        with DisableTorchFunction():
            _, decision = rule.scope(1, next(self.activations), *args[1:], **kwargs)
            return rule.frozen(decision, *args, **kwargs)


class _OnDisk:
    """Tensors in files, which the page cache does not hold when they are read again."""

    def __init__(self, tensors: Iterable[Tensor]):
        self.folder = tempfile.TemporaryDirectory(prefix="dfv-")
        self.shapes = []
        for i, tensor in enumerate(tensors):
            self.shapes.append(tensor.shape)
            with open(self._path(i), "wb") as file:
                file.write(tensor.numpy().tobytes())
                file.flush()
                os.fsync(file.fileno())

    def _path(self, i: int) -> str:
        return os.path.join(self.folder.name, f"{i}.float32")

    def __iter__(self) -> Iterator[Tensor]:
        for i, shape in enumerate(self.shapes):
            with open(self._path(i), "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            yield torch.from_numpy(np.memmap(self._path(i), np.float32, "c", 0, tuple(shape)))


class DFV(ls.MatrixFreeOperator):
    """F by recorded activations, float32 on a CPU if `on_disk`; F^T is the gradient of a replay."""

    def __init__(self, model: nn.Module, x0: Tensor, on_disk: bool = False):
        record = _Record(model)
        with torch.no_grad():
            y = record.run(model, x0)
        self.model = model
        self.nbytes = sum(a.nbytes for a in record.activations)
        self.activations = _OnDisk(record.activations) if on_disk else record.activations
        super().__init__(x0.shape[1:], y.shape[1:], x0.dtype, x0.device)

        with torch.no_grad():
            zero = torch.zeros_like(x0)
            self.residual = _Replay(self.model, self.activations).run(self.model, zero)

    def _matmat(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = _Replay(self.model, self.activations).run(self.model, x)
            return y.sub_(self.residual)

    def _rmatmat(self, u: Tensor) -> Tensor:
        probe = self._zeros(len(u), *self.input_shape).requires_grad_()
        with torch.enable_grad():
            y = _Replay(self.model, self.activations).run(self.model, probe)
        return torch.autograd.grad(y, probe, u)[0]
