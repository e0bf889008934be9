"""Recording a tape: a run of x0 that writes each decision down, and one that holds a tape against
its own decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction

from ..program import Line, Step, Value
from ..program.step import leaves
from ..program.tracer import Tracer
from ..program.views import Untraceable
from ..rules import Fused, UnscopedOperation, packing
from ..rules.checking import mismatch
from ..rules.choices import Places
from ..rules.entry import Decision
from ..rules.packing import pack, unpack
from ..rules.policy import Policy, function_name
from .inputs import watching
from .interception import Interception
from .tape import Entry, Tape

# A module's name, and whether it is about its "input" or its "output".
Place = tuple[str, str]

# What says which call an entry is of.
_PLACE = ("function", "module", "sample_shape")

# What is wrong with a decision of a file, beside the one taken anew.
Fault = Callable[[Decision, Decision], str | None]


class _WatchingTracer(Tracer):
    """A tracer that looks out for what runs out of sight."""

    def __init__(self, run: Interception):
        super().__init__()
        self.run = run

    def on_operator(self, func: Any, args: tuple) -> None:
        self.run.require_seen(func, args)


class Record(Interception):
    """Runs the model on x0, all of it references, and writes each decision on the tape, each step
    of F x + r into a straight line, and the name of each call.

    `keep(number, decision)` gives the decision as it is to be kept: in memory, by default. Of the
    modules `watched`, `seen` has the values of the line that they are given, or give, for each of
    their calls.
    """

    def __init__(
        self,
        model: nn.Module,
        policy: Policy | None = None,
        keep: Callable[[int, Decision], Decision] = lambda number, decision: decision,
        watched: Mapping[Place, nn.Module] | None = None,
    ):
        super().__init__(model, policy, watch=True, transparent=True)
        self.keep = keep
        self.tracer = _WatchingTracer(self)
        self.entries: list[Entry] = []
        self.names: list[str] = []
        self.results: list[Value | None] = []  # of the calls
        self.watched = dict(watched or {})
        self.seen: dict[Place, list[list[Value]]] = {place: [] for place in self.watched}
        self.tape: Tape
        self.line: Line  # of F x + r
        self.steps: list[Step]  # also those that the output is not made of

    def run(self, forward, x):
        try:
            with ExitStack() as stack:
                for place, module in self.watched.items():
                    stack.enter_context(watching(module, place[1], partial(self._note, place)))
                y = super().run(forward, x)
        except Untraceable as error:
            raise UnscopedOperation(f"{self.tracer.label}: {error}") from error
        try:
            self.line, self.steps = self.tracer.line(y), self.tracer.steps
        except Untraceable as error:
            raise UnscopedOperation(str(error)) from error
        self.tape = Tape(self.model, self.policy, x, y, self.entries)
        del self.tracer  # it knows the run: without it, memory goes with the last who needs it
        return y

    def modes(self):
        return [self.tracer]

    def _note(self, place: Place, found: Any) -> None:
        """What a module is given, or gives, each value once."""
        with DisableTorchFunction():
            values = [self.tracer.value(t) for t in leaves(found) if t.layout == torch.strided]
        self.seen[place].append(list(dict.fromkeys(v for v in values if v is not None)))

    def unrecorded(self):
        return self.tracer.pause()

    def on_start(self, x):
        self.tracer.input(x)

    def before(self, func):
        if self.tracer.call != self.calls:  # the functions of a rule are steps of its own call
            self.tracer.label, self.tracer.call = self.where(func), self.calls

    def after(self, func, result):
        super().after(func, result)
        first = result[0] if isinstance(result, tuple | list) else result
        seen = self.tracer.call == self.calls
        self.names.append(self.tracer.label if seen else self.where(func))
        self.results.append(self.tracer.value(first) if isinstance(first, Tensor) else None)

    def __call__(self, decide, *args):
        with DisableTorchFunction():
            probe = next((a for a in args if self.probes(a)), None)
            if probe is None:
                return decide(*args)
            with self.tracer.pause():
                decision = pack(decide(*args))
                value = unpack(decision)
            size = decide.size if isinstance(decide, Places) else None
            kept = self._write(probe, decision, partial(packing.fault, size=size))
            # The run goes by its own decision, the program by what is kept, which is unpacked in
            # each product.
            for part in filter(lambda v: isinstance(v, Tensor), kept.values()):
                self.tracer.constant(part)
            self._assign(value, unpack(self._placed(kept, probe)))
            return value

    def fused(self, rule: Fused, *args, **kwargs):
        with DisableTorchFunction():
            with self.tracer.pause():
                y, decision = rule.scope(_length(args[0]), *args, **kwargs)

            def fault(given: Decision, taken: Decision) -> str | None:
                return mismatch(given, taken) or rule.fault(given, taken, *args, **kwargs)

            kept = self._write(args[0], decision, fault)
            # The answer is the scope's; its steps are those of the frozen operator.
            frozen = rule.frozen(self._placed(kept, args[0]), *args, **kwargs)
            self._assign(y, frozen)
            return y

    def _assign(self, made: Any, shadow: Any) -> None:
        """Lets what a run made stand for what its program makes."""
        for own, other in zip(_listed(made), _listed(shadow), strict=True):
            self.tracer.assign(own, self.tracer.value(other))

    def _write(self, x: Tensor, decision: Decision, fault: Fault) -> Decision:
        """Keeps a decision and gives it as it is kept."""
        name, module, shape = function_name(self.function), self.module_path(), tuple(x.shape[1:])
        self.entries.append(Entry(name, module, shape, self.keep(len(self.entries), decision)))
        return self.entries[-1].decision

    def _placed(self, decision: Decision, like: Tensor) -> Decision:
        """A decision where it is needed; what is kept elsewhere is moved in each product."""
        for part in decision.values():
            if isinstance(part, Tensor) and part.device != like.device:
                self.tracer.constant(part)
        return {k: v.to(like.device) if isinstance(v, Tensor) else v for k, v in decision.items()}


def _length(x: Tensor) -> int:
    return len(x) if x.dim() else 1


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]


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
        return self.entries[-1].decision
