"""Recording a tape: a run of x0 that writes each decision down, and one that holds a tape against
its own decisions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor, nn
from torch._C import DisableTorchFunction

from ..rules import Fused, packing
from ..rules.checking import mismatch
from ..rules.entry import Decision, Places
from ..rules.packing import pack, unpack
from ..rules.policy import Policy, function_name
from .interception import Interception, entries
from .tape import Entry, Tape

# What says which call an entry is of.
_PLACE = ("function", "module", "sample_shape")

# What is wrong with a decision of a file, beside the one taken anew.
Fault = Callable[[Decision, Decision], str | None]


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
