"""Running a network by a tape, without x0 and without activations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch.autograd.graph import saved_tensors_hooks

from ..rules import Fused
from ..rules.entry import Decision
from ..rules.linear import Linear
from ..rules.packing import unpack
from ..rules.policy import Policy, function_name
from .interception import Interception, entries
from .tape import Tape, TapeMismatch
from .writes import write_over

_CONVOLUTIONS = {F.conv1d, F.conv2d, F.conv3d}
_CONVOLUTIONS |= {F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d}


class Replay(Interception):
    """Applies a tape's decisions: A x + c of the whole network, or A x alone where not `affine`.

    A graph of the replay holds weights and decisions alone. What depends on the probe is not saved:
    the derivative of a linear function does not depend on it.
    """

    def __init__(self, model: nn.Module, tape: Tape, affine: bool, policy: Policy | None = None):
        super().__init__(model, policy)
        self.tape = tape
        self.affine = affine

    def run(self, forward, x):
        self.position = 0
        self.stand_ins = _StandIns()
        y = super().run(forward, x)
        if self.position < len(self.tape):
            entry = self.tape.entries[self.position]
            raise TapeMismatch(f"the replay ended before the recorded call {entry}")
        return y

    def __call__(self, decide, *args):
        with DisableTorchFunction():
            probe = next((a for a in args if self.probes(a)), None)
            if probe is None:
                return decide(*args)
            return unpack(self._next(probe), entries(probe))

    def fused(self, rule: Fused, *args, **kwargs):
        with DisableTorchFunction():
            if torch.is_grad_enabled():
                args, kwargs = self._constants(args), self._constants(kwargs)
            return self.frozen(rule, self._next(args[0]), args, kwargs)

    def frozen(self, rule: Fused, decision: Decision, args: tuple, kwargs: dict) -> Tensor:
        return rule.frozen(decision, self.affine, *args, **kwargs)

    def overwrite(self, rule, target, *args, **kwargs):
        if not isinstance(rule, Fused):
            return super().overwrite(rule, target, *args, **kwargs)
        if torch.is_grad_enabled():  # no clone: a frozen operator saves nothing of its input
            return write_over(target, self.apply(rule, target, *args, **kwargs))
        return rule.frozen_(self._next(target), self.affine, target, *args, **kwargs)

    def on_linear(self, entry: Linear, func: Any, args: tuple, kwargs: dict) -> Any:
        if not torch.is_grad_enabled():
            return self._linear(entry, func, args, kwargs)
        args, kwargs = self._constants(args), self._constants(kwargs)
        self.saving = func
        self.storages = set(self._probe_storages((args, kwargs)))
        with saved_tensors_hooks(self._save, _restore):
            return self._linear(entry, func, args, kwargs)

    def _linear(self, entry: Linear, func: Any, args: tuple, kwargs: dict) -> Any:
        if self.affine:
            return func(*args, **kwargs)
        return entry.without_offsets(func, self.probes, args, kwargs)

    def _next(self, x: Tensor) -> Decision:
        name, shape = function_name(self.function), tuple(x.shape[1:])
        entry = self.tape.entries[self.position] if self.position < len(self.tape) else None
        if entry is None or (entry.function, entry.sample_shape) != (name, shape):
            raise TapeMismatch(
                f"the replay calls {self.where(self.function)} on {shape} where the tape has "
                f"{entry or 'no more calls'}: the network's path depends on its input"
            )
        self.position += 1
        return entry.on(x.device)

    def _constants(self, value: Any) -> Any:
        """Weights without their gradients: a product's graph leads to the probe alone."""
        if isinstance(value, Tensor):
            return value.detach() if value.requires_grad and not self.probes(value) else value
        if isinstance(value, tuple | list):
            return type(value)(map(self._constants, value))
        if isinstance(value, dict):
            return {k: self._constants(v) for k, v in value.items()}
        return value

    def _probe_storages(self, value: Any):
        if isinstance(value, Tensor):
            if self.probes(value):
                yield value.untyped_storage()._cdata
        elif isinstance(value, tuple | list):
            for v in value:
                yield from self._probe_storages(v)
        elif isinstance(value, dict):
            yield from self._probe_storages(list(value.values()))

    def _save(self, saved: Tensor) -> Tensor | Callable[[], Tensor]:
        """What a graph keeps: of the probe, its shape. NaN stands for it, where it counts."""
        with DisableTorchFunction():
            if not saved.is_floating_point():
                return saved
            if saved.untyped_storage()._cdata not in self.storages:
                return saved
            if self.saving in _CONVOLUTIONS:
                return self.stand_ins.of(saved)
            return partial(torch.Tensor.expand, saved.new_full((), torch.nan), saved.shape)


class _StandIns:
    """Tensors of any shape in one piece of memory that nobody writes or reads.

    A convolution's transpose asks its input for the shape alone, but wants it dense: NaN would have
    to be written out, and memory of its own for each call would have to be found.
    """

    def __init__(self) -> None:
        self.memory: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def of(self, like: Tensor) -> Callable[[], Tensor]:
        kind, shape, stride = (like.dtype, like.device), like.shape, like.stride()
        size = 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if kind not in self.memory or self.memory[kind].numel() < size:
            self.memory[kind] = like.new_empty(size)
        return lambda: self.memory[kind].as_strided(shape, stride)


def _restore(saved: Tensor | Callable[[], Tensor]) -> Tensor:
    return saved if isinstance(saved, Tensor) else saved()
