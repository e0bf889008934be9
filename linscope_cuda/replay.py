"""Recording a tape, and running a network by it, without x0 and without activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch.autograd.graph import saved_tensors_hooks

from .interception import Interception, entries
from .linear import Linear
from .policy import Policy, function_name
from .rules import Fused, packing
from .rules.checking import mismatch
from .rules.entry import Decision, Places
from .rules.packing import pack, unpack
from .tape import Entry, Tape, TapeMismatch
from .writes import write_over

# What says which call an entry is of.
_PLACE = ("function", "module", "sample_shape")

# What is wrong with a decision of a file, beside the one taken anew.
Fault = Callable[[Decision, Decision], str | None]

_CONVOLUTIONS = {F.conv1d, F.conv2d, F.conv3d}
_CONVOLUTIONS |= {F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d}


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
        self.tape: Tape

    def run(self, forward, x):
        y = super().run(forward, x)
        self.tape = Tape(self.model, self.policy, x, y, self.entries)
        return y

    def __call__(self, decide, *args):
        with DisableTorchFunction():
            probe = next((a for a in args if self.probes(a)), None)
            if probe is None:
                return decide(*args)
            decision = pack(decide(*args), entries(probe))
            size = decide.size if isinstance(decide, Places) else None
            self._write(probe, decision, partial(packing.fault, size=size))
            return unpack(decision, len(probe))

    def fused(self, rule: Fused, *args, **kwargs):
        with DisableTorchFunction():
            y, decision = rule.scope(entries(args[0]), *args, **kwargs)

            def fault(given: Decision, taken: Decision) -> str | None:
                return mismatch(given, taken) or rule.fault(given, taken, *args, **kwargs)

            self._write(args[0], decision, fault)
            return y

    def _write(self, x: Tensor, decision: Decision, fault: Fault) -> None:
        name, module, shape = function_name(self.function), self.module_path(), tuple(x.shape[1:])
        entry = Entry(name, module, shape, self.keep(len(self.entries), decision))
        self.entries.append(entry)


class Unfit(ValueError):
    """A tape is none that the model can have recorded; the message says where."""


class Verification(Record):
    """Runs the model on a tape's x0; `Unfit` where an entry is none that its call can have made.

    Each entry is held against the decision that is taken anew, so that nothing of a file is used
    before it is known to be of the right kind and in range. Its numbers may differ: another device
    rounds otherwise.
    """

    def __init__(self, tape: Tape):
        super().__init__(tape.model, tape.policy)
        self.given = tape

    def run(self, forward, x):
        y = super().run(forward, x)
        if len(self.given) > len(self.entries):
            raise Unfit(
                f"it holds {len(self.given)} decisions where the model takes {len(self.entries)}"
            )
        return y

    def _write(self, x, decision, fault):
        super()._write(x, decision, fault)
        number, taken = len(self.entries) - 1, self.entries[-1]
        if number == len(self.given):
            raise Unfit(f"the model calls {taken} where it has no more decisions")
        given = self.given.entries[number]
        if any(getattr(given, k) != getattr(taken, k) for k in _PLACE):
            raise Unfit(f"the model calls {taken} where it has {str(given)!r:.200}")
        if wrong := fault(given.decision, decision):
            raise Unfit(f"in decision {number}, {taken}, {wrong}")
        # In the order of those taken: a rule may go by it.
        self.entries[-1] = replace(taken, decision={k: given.decision[k] for k in decision})


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
