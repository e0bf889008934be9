"""What each call of a frozen network adds whatever its input is, and the gradients that meet it.

The frozen network is a chain of calls y = A x + c. Run on zeros, without offsets, it is zero
everywhere: there a call made with its offset, beside the run, gives c itself. The gradient of an
output with respect to the call's result is q, and <q, c> is what the call adds to that output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..capture.replay import Replay
from ..capture.tape import Tape
from ..rules import Fused, UnscopedOperation
from ..rules.entry import Decision
from ..rules.linear import Linear, owner, writes_in_place
from .interpreter import LinearInterpreter


@dataclass(frozen=True)
class Offset:
    """c of a call, for one sample; `shape` is that of the call's result, to which `value`
    broadcasts.
    """

    name: str
    value: Tensor
    shape: torch.Size

    def by_sample(self, q: Tensor, samples: int) -> Tensor:
        """A gradient of the call's result as (samples, *shape), wherever the samples lie in it."""
        at = self._samples_at(q, samples)
        return q.unflatten(at, (samples, self.shape[at])).movedim(at, 0)

    def as_result(self, q: Tensor, like: Tensor) -> Tensor:
        """What `by_sample` made, in the call's own shape."""
        at = self._samples_at(like, len(q))
        return q.movedim(0, at).flatten(at, at + 1)

    def _samples_at(self, q: Tensor, samples: int) -> int:
        if samples == 1:
            return 0
        differ = [i for i, (a, b) in enumerate(zip(q.shape, self.shape, strict=False)) if a != b]
        grown = list(self.shape)
        if len(differ) == 1:
            grown[differ[0]] *= samples
        if list(q.shape) != grown or not differ:
            raise UnscopedOperation(
                f"{self.name} gives {tuple(self.shape)} for one sample and {tuple(q.shape)} for "
                f"{samples}: samples must stay apart in one dimension"
            )
        return differ[0]


# (number, offset, q), in every reverse pass through a graph.
Meet = Callable[[int, Offset, Tensor], Tensor | None]


def contribution(q: Tensor, c: Tensor) -> Tensor:
    """q * c entry by entry; of complex numbers, their real and imaginary parts each."""
    return torch.complex(q.real * c.real, q.imag * c.imag) if q.is_complex() else q * c


class Taps(Replay):
    """A run of the frozen network without its offsets on zeros, in a graph. Each gradient q that
    reaches a call with an offset goes to `meet(number, offset, q)`; what that returns takes q's
    place, if not None.

    Finds the offsets, on one sample, or is told those that were `found`, call by call.
    """

    meet: Meet

    def __init__(self, op: LinearInterpreter, tape: Tape, found: list[list[Offset | None]] | None):
        super().__init__(op.model, tape, affine=False, policy=op.policy)
        self.known = None if found is None else iter(found)
        self.found: list[list[Offset | None]] = []
        self.count = 0

    def on_linear(self, entry: Linear, func: Any, args: tuple, kwargs: dict) -> Any:
        c = self._c(entry, func, args, kwargs) if self.known is None else None
        y = super().on_linear(entry, func, args, kwargs)
        self._tap(owner(args[0]) if writes_in_place(func) else y, c, func)
        return y

    def frozen(self, rule: Fused, decision: Decision, args: tuple, kwargs: dict) -> Tensor:
        with torch.no_grad():
            c = rule.offset(decision, *args, **kwargs) if self.known is None else None
        y = super().frozen(rule, decision, args, kwargs)
        self._tap(y, c, self.function)
        return y

    @torch.no_grad()
    def _c(self, entry: Linear, func: Any, args: tuple, kwargs: dict) -> Any:
        if not entry.has_offset(func, self.probes, args, kwargs):
            return None
        if writes_in_place(func):
            return _written(func, args, kwargs)
        if entry.offset is not None:
            return entry.offset(func, self.probes, args, kwargs)
        return func(*args, **kwargs)

    def _tap(self, result: Any, c: Any, func: Any) -> None:
        results = _tensors(result)
        if self.known is None:
            values = _tensors(c) or [None] * len(results)
            pairs = zip(results, values, strict=True)
            self.found.append([self._offset(func, y, value) for y, value in pairs])
        offsets = self.found[-1] if self.known is None else next(self.known)
        for tensor, offset in zip(results, offsets, strict=True):
            if offset is not None:
                if tensor.requires_grad:
                    tensor.register_hook(self._hook(self.count, offset))
                self.count += 1

    def _offset(self, func: Any, y: Tensor, c: Tensor | None) -> Offset | None:
        if c is None or not (c.is_floating_point() or c.is_complex()) or not c.any():
            return None
        value = c.detach().reshape([1] * (y.dim() - c.dim()) + list(c.shape))
        return Offset(self.where(self.function or func), value, y.shape)

    def _hook(self, number: int, offset: Offset) -> Callable[[Tensor], Tensor | None]:
        return lambda q: self.meet(number, offset, q)


class Offsets:
    """The offsets of an interpreter's calls, in their order, and graphs in which to meet them.

    offsets = Offsets(op)
    graph = offsets.graph(8, meet)
    graph(u)    # F^T u, 8 samples, with a call of `meet` for each offset
    """

    def __init__(self, op: LinearInterpreter):
        self.op = op
        self.tape = op.tape if op.storage != "none" else _recorded(op)
        self._of_one = self._run(1)
        op._passes += 1
        self._found = self._of_one[0].found
        self.list = [o for offsets in self._found for o in offsets if o is not None]

    def _run(
        self, samples: int, found: list[list[Offset | None]] | None = None
    ) -> tuple[Taps, Tensor, Tensor]:
        """A run with its probe and the graph's end."""
        op = self.op
        taps = Taps(op, self.tape, found)
        probe = op._zeros(samples, *op.input_shape).requires_grad_()
        with torch.enable_grad():
            return taps, probe, op._run(taps, probe)

    def graph(self, samples: int, meet: Meet) -> Callable[[Tensor], Tensor]:
        """F^T u for batches of that many samples, in a graph that is built once."""
        op = self.op
        taps, probe, y = self._of_one if samples == 1 else self._run(samples, self._found)

        def transposed(u: Tensor) -> Tensor:
            op._passes += samples
            taps.meet = meet
            with op.network.settings(op.device), torch.no_grad():
                return torch.autograd.grad(y, probe, u, retain_graph=True)[0]

        return transposed


def require_interpreter(name: str, op: Any) -> None:
    """TypeError, in the words of function `name`, for what is no LinearInterpreter."""
    if not isinstance(op, LinearInterpreter):
        raise TypeError(f"{name} wants a LinearInterpreter, was given {type(op).__name__}")


def one_hot(flat: list[int], samples: int, op: LinearInterpreter) -> Tensor:
    """Unit vectors of the output at flat positions, then zeros: (samples, *output_shape)."""
    u = op._zeros(samples, math.prod(op.output_shape))
    u[range(len(flat)), flat] = 1
    return u.reshape(samples, *op.output_shape)


def batches(flat: list[int], size: int) -> Iterator[tuple[int, list[int]]]:
    """(start, flat[start : start + size]), piece by piece."""
    for start in range(0, len(flat), size):
        yield start, flat[start : start + size]


def _recorded(op: LinearInterpreter) -> Tape:
    """The decisions of an interpreter that keeps none."""
    part = copy(op)
    part.storage = "tape"
    return part._record()


def _tensors(value: Any) -> list[Tensor]:
    values = value if isinstance(value, tuple | list) else [value]
    return [v for v in values if isinstance(v, Tensor)]


def _written(func: Any, args: tuple, kwargs: dict) -> Tensor:
    """What a call that writes leaves in the whole of the tensor that it writes into."""
    target = args[0]
    written = owner(target)
    whole = written.detach().clone()
    within = target.storage_offset() - written.storage_offset()
    func(whole.as_strided(target.shape, target.stride(), within), *args[1:], **kwargs)
    return whole
