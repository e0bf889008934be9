"""Recording a tape, and running a network by it, without x0 and without activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch.autograd.graph import saved_tensors_hooks

from .interception import Interception, entries
from .linear import Linear, writes_in_place
from .policy import Policy, function_name
from .rules import Fused
from .rules.entry import Decision
from .rules.packing import pack, unpack
from .tape import Entry, Tape, TapeMismatch


class Record(Interception):
    """Runs the model on x0, all of it references, and writes each decision on the tape.

    `keep(number, decision)` gives the decision as it is to be kept: in memory, by default.
    """

    def __init__(
        self,
        model: nn.Module,
        policy: Policy | None = None,
        keep: Callable[[int, Decision], Decision] = lambda number, decision: decision,
    ):
        super().__init__(model, policy)
        self.keep = keep
        self.entries: list[Entry] = []

    def tape(self, forward: Callable[[Tensor], Any], x0: Tensor) -> Tape:
        """The tape of forward(x0), which calls the model."""
        y = self.run(forward, x0)
        return Tape(self.model, self.policy, x0, y, self.entries)

    def __call__(self, decide, *args):
        with DisableTorchFunction():
            probe = next((a for a in args if self.probes(a)), None)
            if probe is None:
                return decide(*args)
            decision = pack(decide(*args), entries(probe))
            self._write(probe, decision)
            return unpack(decision, len(probe))

    def fused(self, rule: Fused, *args, **kwargs):
        with DisableTorchFunction():
            y, decision = rule.scope(entries(args[0]), *args, **kwargs)
            self._write(args[0], decision)
            return y

    def _write(self, x: Tensor, decision: Decision) -> None:
        shape = tuple(x.shape[1:])
        decision = self.keep(len(self.entries), decision)
        name = function_name(self.function)
        self.entries.append(Entry(name, self.module_path(), shape, decision))


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
        self.storages: set[int] = set()
        with saved_tensors_hooks(self._save, _shape_only):
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
            args, kwargs = self._constants(args), self._constants(kwargs)
            return rule.frozen(self._next(args[0]), self.affine, *args, **kwargs)

    def on_linear(self, entry: Linear, func: Any, args: tuple, kwargs: dict) -> Any:
        if not torch.is_grad_enabled():
            return self._linear(entry, func, args, kwargs)
        args, kwargs = self._constants(args), self._constants(kwargs)
        self.storages = set(self._probe_storages((args, kwargs)))
        try:
            return self._linear(entry, func, args, kwargs)
        finally:
            self.storages = set()

    def _linear(self, entry: Linear, func: Any, args: tuple, kwargs: dict) -> Any:
        if self.affine:
            return func(*args, **kwargs)
        if writes_in_place(func) and not self.probes(args[0]):
            target = args[0]
            (target if target._base is None else target._base).zero_()
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

    def _save(self, saved: Tensor) -> Tensor | tuple:
        with DisableTorchFunction():
            if saved.is_floating_point() and saved.untyped_storage()._cdata in self.storages:
                return saved.shape, saved.new_full((), torch.nan)
            return saved


def _shape_only(saved: Tensor | tuple) -> Tensor:
    if isinstance(saved, Tensor):
        return saved
    shape, nan = saved
    return nan.expand(shape)
