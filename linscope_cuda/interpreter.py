"""LinearInterpreter: a network, frozen for one input, as the matrix-free affine map y = F(x0) x +
r(x0).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from .operator import MatrixFreeOperator
from .patch import DoubledBatch, require_frozen
from .tape import Replay, Tape, record

STORAGES = ("tape", "none")
POLICIES = ("paper",)

# A pass holds a few tensors of the largest call at a time: its input, its output, and what the
# convolution lays out for itself.
_LIVE_CALLS = 3


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """No TF32, and no algorithm that changes from call to call, while a network runs on CUDA.

    Otherwise y0 = F x0 + r would hold to three digits, and differ between batch sizes.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = matmul.fp32_precision
    with cudnn.flags(cudnn.enabled, False, None, cudnn.deterministic, False):
        matmul.fp32_precision = "ieee"
        try:
            yield
        finally:
            matmul.fp32_precision = before


class LinearInterpreter(MatrixFreeOperator):
    """The network's filter F and residual r for x0, the linear system that its decisions leave
    (equations 1 and 5).

    x0 is (1, *input_shape), of the model's dtype and on its device. `storage`: "tape" records the
    decisions once and spends one plain pass per product; "none" is the paper's doubled batch, which
    keeps nothing and runs x0 each time. Products are cut into batches that fit in about
    `max_bytes`.

    ValueError for a wrong shape, a non-finite x0, a model in training mode or an unknown storage or
    policy; TypeError for a wrong dtype; UnscopedOperation for a function that is neither linear nor
    has a rule.

    >>> op = ls.LinearInterpreter(model, x0)
    >>> op.filter(x0) + op.residual                       # op.output, which is model(x0)
    """

    def __init__(
        self,
        model: nn.Module,
        x0: Tensor,
        policy: str = "paper",
        storage: str = "tape",
        max_bytes: int = 2**30,
    ):
        _check(model, x0, policy, storage)
        self.model = model
        self.storage = storage
        self.x0 = x0.detach()
        with _full_precision(x0.device):
            self.output, self.tape = record(model, self.x0)
        if len(self.output) != 1:
            raise ValueError(
                f"the model gave {len(self.output)} samples for one; F maps a sample to a sample"
            )
        largest = max(self.tape.largest_call, 1)
        super().__init__(
            x0.shape[1:],
            self.output.shape[1:],
            x0.dtype,
            x0.device,
            max(1, max_bytes // (_LIVE_CALLS * largest)),
        )
        self._passes = 1
        self._graphs: dict[int, tuple[Tensor, Tensor]] = {}
        if storage == "none":
            self.tape = Tape()

    def __call__(self, x: Tensor) -> Tensor:
        """F x + r: (K, *input_shape) -> (K, *output_shape)."""
        return self.filter(x) + self.residual

    @cached_property
    def residual(self) -> Tensor:
        """r, the frozen network's answer to 0: (1, *output_shape)."""
        self._passes += 1
        zero = self._zeros(1, *self.input_shape)
        with torch.no_grad(), _full_precision(self.device):
            if self.storage == "none":
                return self._doubled(zero)
            return Replay(self.model, self.tape, affine=True).run(zero)

    def _doubled(self, x: Tensor) -> Tensor:
        return DoubledBatch(self.model, references=1).run(torch.cat([self.x0, x]))[1:]

    def _matmat(self, x: Tensor) -> Tensor:
        differentiable = torch.is_grad_enabled() and x.requires_grad
        with torch.set_grad_enabled(differentiable), _full_precision(self.device):
            if self.storage == "none":
                self._passes += 1  # x0 runs along
                return self._doubled(x) - self.residual
            return Replay(self.model, self.tape, affine=False).run(x)

    def _rmatmat(self, u: Tensor) -> Tensor:
        with _full_precision(self.device):
            if self.storage == "none":
                self._passes += 1
                probe = self._zeros(len(u), *self.input_shape).requires_grad_()
                with torch.enable_grad():
                    y = self._doubled(probe)
                return torch.autograd.grad(y, probe, u)[0]
            probe, y = self._graph(len(u))
            differentiable = torch.is_grad_enabled() and u.requires_grad
            return torch.autograd.grad(y, probe, u, retain_graph=True, create_graph=differentiable)[
                0
            ]

    def _graph(self, samples: int) -> tuple[Tensor, Tensor]:
        """A probe and F probe with its graph: linear, so that one graph serves every transposed
        product of its size.
        """
        if samples not in self._graphs:
            self._graphs = dict(list(self._graphs.items())[-1:])  # a size and its remainder
            probe = self._zeros(samples, *self.input_shape).requires_grad_()
            with torch.enable_grad():
                self._graphs[samples] = probe, Replay(self.model, self.tape, False).run(probe)
        return self._graphs[samples]


def _check(model: Any, x0: Any, policy: str, storage: str) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"LinearInterpreter wants a torch.nn.Module, was given {type(model).__name__}"
        )
    if not isinstance(x0, Tensor):
        raise TypeError(
            f"LinearInterpreter wants x0 as a torch.Tensor, was given {type(x0).__name__}"
        )
    if not x0.is_floating_point():
        raise TypeError(f"LinearInterpreter wants a floating x0, was given {x0.dtype}")
    if x0.dim() < 2 or len(x0) != 1:
        raise ValueError(
            f"LinearInterpreter wants one input, (1, *input_shape), was given {tuple(x0.shape)}"
        )
    if not x0.isfinite().all():
        raise ValueError("LinearInterpreter wants a finite x0, was given one with NaN or infinity")
    if storage not in STORAGES:
        raise ValueError(f"storage wants one of {', '.join(STORAGES)}, was given {storage!r}")
    if policy not in POLICIES:
        raise ValueError(f"policy wants one of {', '.join(POLICIES)}, was given {policy!r}")
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    if weight is not None and weight.dtype != x0.dtype:
        raise TypeError(f"x0 is {x0.dtype}, the model's weights are {weight.dtype}")
    if weight is not None and weight.device != x0.device:
        raise ValueError(f"x0 is on {x0.device}, the model's weights are on {weight.device}")
    require_frozen(model)
