"""Running the user's own network by a tape: what a program is held against."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch._C import DisableTorchFunction

from ..rules import Fused
from ..rules.entry import Decision
from ..rules.packing import unpack
from ..rules.policy import Policy, function_name
from .interception import Interception
from .tape import Tape, TapeMismatch


class Replay(Interception):
    """Applies a tape's decisions to another input than that they were taken for: F x + r."""

    def __init__(self, model: nn.Module, tape: Tape, policy: Policy, wanted: int | None = None):
        super().__init__(model, policy, transparent=True, wanted=wanted)
        self.tape = tape
        self.position = 0

    def run(self, forward, x):
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
            return unpack(self._next(probe))

    def fused(self, rule: Fused, *args: Any, **kwargs: Any) -> Any:
        with DisableTorchFunction():
            return rule.frozen(self._next(args[0]), *args, **kwargs)

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
