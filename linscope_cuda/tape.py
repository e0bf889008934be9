"""The tape: every decision a network took for x0, recorded once and replayed without x0 and without
activations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .linear import Linear
from .patch import Interception, function_name, without_inplace
from .rules import Decision, Rule


class TapeMismatch(RuntimeError):
    """A replay called other functions than the record: the network branches on its input's values
    or shape.
    """


@dataclass(frozen=True)
class Entry:
    """One call: the function, the module that called it, the shape of a sample there, and the
    decision.
    """

    function: str
    module: str
    sample_shape: tuple[int, ...]
    decision: Decision

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self.decision.values() if isinstance(t, Tensor))

    def __str__(self) -> str:
        return f"{self.function} in {self.module} on {self.sample_shape}"


class Tape:
    """Decisions in the order of the network's calls; `print(tape)` is a table, `nbytes` their
    memory.

    >>> op.tape.nbytes
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.largest_call = 0  # bytes in and out of one call, of one sample

    @property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entry in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __repr__(self) -> str:
        lines = [f"{'function':36} {'module':28} {'sample':>20} {'bytes':>12}"]
        for e in self.entries:
            shape = "x".join(map(str, e.sample_shape))
            lines.append(f"{e.function:36} {e.module:28} {shape:>20} {e.nbytes:12,}")
        lines.append(f"{len(self)} decisions, {self.nbytes:,} bytes")
        return "\n".join(lines)


def _nbytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    return sum(map(_nbytes, value)) if isinstance(value, tuple | list) else 0


class Record(Interception):
    """Runs the model on x0, all of it references, and writes each decision on the tape."""

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.tape = Tape()

    def on_rule(self, rule: Rule, func: Any, args: tuple, kwargs: dict) -> Tensor:
        x0 = args[0]
        y, decision = rule.scope(len(x0), *args, **without_inplace(kwargs))
        self.tape.entries.append(
            Entry(function_name(func), self.module_path(), tuple(x0.shape[1:]), decision)
        )
        self._measure(args, y)
        return y

    def on_linear(self, entry: Linear, func: Any, args: tuple, kwargs: dict) -> Any:
        y = func(*args, **kwargs)
        self._measure(args, y)
        return y

    def _measure(self, args: tuple, y: Any) -> None:
        probes = [a for a in args if self._probes(a)]
        self.tape.largest_call = max(self.tape.largest_call, _nbytes(probes) + _nbytes(y))


class Replay(Interception):
    """Applies a tape's decisions: A x + c of the whole network, or A x alone where not `affine`."""

    def __init__(self, model: nn.Module, tape: Tape, affine: bool):
        super().__init__(model)
        self.tape = tape
        self.affine = affine

    def run(self, x: Tensor) -> Tensor:
        self.position = 0
        y = super().run(x)
        if self.position < len(self.tape):
            entry = self.tape.entries[self.position]
            raise TapeMismatch(f"the replay ended before the recorded call {entry}")
        return y

    def on_rule(self, rule: Rule, func: Any, args: tuple, kwargs: dict) -> Tensor:
        return rule.frozen(
            self._next(func, args[0]),
            self.affine,
            *_constants(args, self),
            **without_inplace(kwargs),
        )

    def on_linear(self, entry: Linear, func: Any, args: tuple, kwargs: dict) -> Any:
        args, kwargs = _constants(args, self), _constants(kwargs, self)
        if self.affine:
            return func(*args, **kwargs)
        return entry.homogeneous(func, self._probes, args, kwargs)

    def _next(self, func: Any, x: Tensor) -> Decision:
        name, shape = function_name(func), tuple(x.shape[1:])
        entry = self.tape.entries[self.position] if self.position < len(self.tape) else None
        if entry is None or (entry.function, entry.sample_shape) != (name, shape):
            raise TapeMismatch(
                f"the replay calls {self.where(func)} on {shape} where the tape has "
                f"{entry or 'no more calls'}: the network's path depends on its input"
            )
        self.position += 1
        return entry.decision


def _constants(value: Any, run: Interception) -> Any:
    """Weights without their gradients: a product's graph leads to the probe alone."""
    if isinstance(value, Tensor):
        return value if run.is_probe(value) or not value.requires_grad else value.detach()
    if isinstance(value, tuple | list):
        return type(value)(_constants(v, run) for v in value)
    if isinstance(value, dict):
        return {k: _constants(v, run) for k, v in value.items()}
    return value


def record(model: nn.Module, x0: Tensor) -> tuple[Tensor, Tape]:
    """y0 = f(x0) and the tape of the decisions taken; nothing else is kept."""
    run = Record(model)
    with torch.no_grad():
        return run.run(x0), run.tape
