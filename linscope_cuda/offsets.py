"""What each call of a frozen network adds whatever its input is, and the gradients that meet it.

The frozen network is a chain of calls y = A x + c. Run on zeros, without offsets, it is zero
everywhere: there a call with its offset gives c itself, without subtraction. The gradient of an
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

from .interception import owner, write_over
from .interpreter import LinearInterpreter
from .linear import Linear, writes_in_place
from .replay import Replay
from .rules import Fused, UnscopedOperation
from .tape import Tape


@dataclass(frozen=True)
class Offset:
    """c of a call, for one sample; `shape` is that of the call's result. `value` has extent 1
    wherever c is the same all along a dimension.
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


def contribution(q: Tensor, c: Tensor) -> Tensor:
    """q * c entry by entry; of complex numbers, their real and imaginary parts each."""
    return torch.complex(q.real * c.real, q.imag * c.imag) if q.is_complex() else q * c


class _Calls(Replay):
    """The frozen network without its offsets, told the result of each call that may have one."""

    def __init__(self, op: LinearInterpreter, tape: Tape):
        super().__init__(op.model, tape, affine=False, policy=op.policy)

    def result(self, y: Any) -> None:
        """A call's result, or the tensor that it wrote into."""

    def on_linear(self, entry: Linear, func: Any, args: tuple, kwargs: dict) -> Any:
        y = super().on_linear(entry, func, args, kwargs)
        self.result(owner(args[0]) if writes_in_place(func) else y)
        return y

    def fused(self, rule: Fused, *args: Any, **kwargs: Any) -> Tensor:
        y = super().fused(rule, *args, **kwargs)
        self.result(y)
        return y

    def overwrite(self, rule: Any, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if isinstance(rule, Fused):  # as with a graph: both runs make the same calls
            return write_over(target, self.apply(rule, target, *args, **kwargs))
        return super().overwrite(rule, target, *args, **kwargs)


class _Search(_Calls):
    """Run on one sample of zeros: each call's offset, None where it has none."""

    def __init__(self, op: LinearInterpreter, tape: Tape):
        super().__init__(op, tape)
        self.found: list[list[Offset | None]] = []

    def on_linear(self, entry: Linear, func: Any, args: tuple, kwargs: dict) -> Any:
        offset = _written if writes_in_place(func) else _returned
        self._note(func, offset(func, args, kwargs))
        return super().on_linear(entry, func, args, kwargs)

    def fused(self, rule: Fused, *args: Any, **kwargs: Any) -> Tensor:
        at, self.affine = self.position, True
        self._note(self.function, Replay.fused(self, rule, *args, **kwargs))
        self.position, self.affine = at, False
        return super().fused(rule, *args, **kwargs)

    def _note(self, func: Any, c: Any) -> None:
        name = self.where(self.function or func)
        self.found.append([_offset(name, value) for value in _tensors(c)])


class Taps(_Calls):
    """Calls `meet(number, offset, q)` with each gradient q that reaches a call with an offset, in
    every reverse pass through this run's graph; what it returns takes q's place, if not None.
    """

    def __init__(
        self,
        op: LinearInterpreter,
        tape: Tape,
        found: list[list[Offset | None]],
        meet: Callable[[int, Offset, Tensor], Tensor | None],
    ):
        super().__init__(op, tape)
        self.found = iter(found)
        self.meet = meet
        self.count = 0

    def result(self, y: Any) -> None:
        for tensor, offset in zip(_tensors(y), next(self.found), strict=True):
            if offset is not None:
                if tensor.requires_grad:
                    tensor.register_hook(self._hook(self.count, offset))
                self.count += 1

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
        search = _Search(op, self.tape)
        with torch.no_grad():
            op._run(search, torch.zeros_like(op.x0))
        op._passes += 1
        self._found = search.found
        self.list = [o for offsets in search.found for o in offsets if o is not None]

    def graph(
        self, samples: int, meet: Callable[[int, Offset, Tensor], Tensor | None]
    ) -> Callable[[Tensor], Tensor]:
        """F^T u for batches of that many samples, in a graph that is built once."""
        op = self.op
        taps = Taps(op, self.tape, self._found, meet)
        probe = op._zeros(samples, *op.input_shape).requires_grad_()
        with torch.enable_grad():
            y = op._run(taps, probe)

        def transposed(u: Tensor) -> Tensor:
            op._passes += samples
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


def _offset(name: str, c: Tensor) -> Offset | None:
    shape = c.shape
    if not (c.is_floating_point() or c.is_complex()) or not c.any():
        return None
    for dim, extent in enumerate(shape):
        first = c.narrow(dim, 0, 1)
        if extent > 1 and (c == first).all():
            c = first
    return Offset(name, c.detach().clone(), shape)


def _returned(func: Any, args: tuple, kwargs: dict) -> Any:
    return func(*args, **kwargs)


def _written(func: Any, args: tuple, kwargs: dict) -> Tensor:
    """What a call that writes leaves in the whole of the tensor that it writes into."""
    target = args[0]
    written = owner(target)
    whole = written.detach().clone()
    within = target.storage_offset() - written.storage_offset()
    func(whole.as_strided(target.shape, target.stride(), within), *args[1:], **kwargs)
    return whole
