"""Recording a straight line: every operator that runs, with views and writes taken apart.

A tensor that depends on the program's input has a value. What runs on constants alone is run and
forgotten: its result is a constant, too. A tensor is known by where it lies: its storage, and its
geometry in it. What writes into a tensor makes a new value of the whole storage; what else is seen
there is made anew where it is read again.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .line import Line
from .spellings import INDEXED, is_mask, result_dtype, spelled, twin
from .step import Step, Value, leaves, substituted
from .storage import Storage
from .views import Geometry, Untraceable, View, each_view, geometry, shown

aten = torch.ops.aten


class Held:
    """A constant that steps hold: a tensor, or, once that is written into, a copy from before."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor
        self.shape, self.dtype = tensor.shape, tensor.dtype


class Tracer(TorchDispatchMode):
    """Records the operators that run within it on what depends on `input(x)`.

    with Tracer() as tracer:
        y = f(tracer.input(x))
    line = tracer.line(y)
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.given: list[Value] = []  # the inputs
        self.count = 0  # values so far
        self.device = torch.device("cpu")  # of the inputs
        self.label, self.call = "", -1  # of the steps to come
        self.paused = False
        self.storages: dict[int, Storage] = {}
        self.held: dict[int, list[Held]] = {}  # by their storages, which they keep alive

    # ---- The ends ----

    def input(self, x: Tensor) -> Tensor:
        """x as what everything depends on."""
        self.device = x.device
        self.given.append(self._value(tuple(x.shape), x.dtype))
        self.assign(x, self.given[-1])
        return x

    def line(self, y: Tensor) -> Line:
        """The steps from the one input to y."""
        steps, (given,), (output,) = self.lines([y])
        if output is None:
            raise Untraceable("the result does not depend on the input")
        return Line(given, steps, output)

    def lines(self, ys: list[Any]) -> tuple[list[Step], list[Value], list[Value | None]]:
        """The steps, the inputs, and the values of some tensors; nothing is recorded after it."""
        values = [self.value(y) if isinstance(y, Tensor) else None for y in ys]
        self.steps = list(map(_settled, self.steps))
        return self.steps, self.given, values

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What runs within is not recorded, and its results are constants."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    def constant(self, t: Tensor) -> None:
        """Lets what is made of a constant be made in each run, not kept."""
        like = [(tuple(t.shape), t.dtype)]
        self.assign(t, self._emit(aten.alias.default, (self._hold(t),), {}, like)[0])

    # ---- Values of tensors ----

    def value(self, t: Tensor) -> Value | None:
        """What t holds now; None if that does not depend on the input."""
        storage = self._storage(t)
        if storage is None or storage.value is None:
            return None
        return storage.read(geometry(t), self._step)

    def assign(self, t: Tensor, value: Value | None) -> None:
        """Lets a tensor in memory of its own stand for a value."""
        key = t.untyped_storage()._cdata
        if key not in self.storages:
            weakref.finalize(t.untyped_storage(), self.storages.pop, key, None)
        self.storages[key] = Storage(geometry(t), value)

    def _storage(self, t: Tensor) -> Storage | None:
        return self.storages.get(t.untyped_storage()._cdata) if _has_storage(t) else None

    def _storage_of(self, t: Tensor) -> Storage:
        """A storage, of constants so far if it is not known."""
        if self._storage(t) is None:
            self.assign(t if t._base is None else t._base, None)
        return self.storages[t.untyped_storage()._cdata]

    def _step(self, function: Any, args: tuple, like: tuple[tuple[int, ...], torch.dtype]) -> Value:
        return self._emit(function, args, {}, [like])[0]

    def _value(self, shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        self.count += 1
        return Value(self.count - 1, shape, dtype, self.device)

    # ---- Operators ----

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and what keeps compilers out takes its time

    def on_operator(self, func: Any, args: tuple) -> None:
        """Is told every operator before it runs."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        func, kwargs = spelled(func, kwargs or {})
        self.on_operator(func, args)
        if self.paused:
            return func(*args, **kwargs)
        if func.overloadpacket in INDEXED:
            args = (args[0], self._places(args[1]), *args[2:])
        if any(written := _written(func)):
            return self._run_writing(func, written, args, kwargs)
        if func.overloadpacket in _FACTORIES:
            return func(*args, **kwargs)
        given = self._operands((args, kwargs))
        result = func(*args, **kwargs)
        if _views(func):
            self._note_views(func, args, kwargs, result)
        elif any(isinstance(v, Value) for v in given.values()):
            self._record(func, args, kwargs, result, given)
        return result

    def _places(self, indices: list) -> list:
        """Indices with places for masks: how many these are, a mask made anew does not say."""
        with self.pause():
            return [
                place for i in indices for place in (i.nonzero().unbind(1) if is_mask(i) else [i])
            ]

    def _operands(self, arguments: Any) -> dict[int, Value | Held | Tensor]:
        """By tensor, its value or itself."""
        tensors = [t for t in leaves(arguments) if isinstance(t, Tensor)]
        values = {id(t): self.value(t) for t in tensors}
        return {id(t): t if (v := values[id(t)]) is None else v for t in tensors}

    def _record(self, func, args, kwargs, result, given) -> None:
        made = _listed(result)
        args, kwargs = self._named(args, given), self._named(kwargs, given)
        like = [(tuple(t.shape), t.dtype) if isinstance(t, Tensor) else None for t in made]
        outputs = self._emit(func, args, kwargs, like, isinstance(result, tuple | list))
        for t, value in zip(made, outputs, strict=True):
            if value is not None:
                self.assign(t, value)

    def _named(self, arguments: Any, given: dict[int, Value | Held | Tensor]) -> Any:
        """Arguments as a step has them: values, and constants that it holds."""

        def operand(t: Tensor) -> Any:
            known = given[id(t)]
            return self._hold(known) if isinstance(known, Tensor) else known

        return substituted(arguments, operand)

    def _emit(self, function, args, kwargs, like, several=False) -> tuple:
        outputs = tuple(None if kind is None else self._value(*kind) for kind in like)
        step = Step(function, args, kwargs, outputs, self.label, self.call, not several)
        self.steps.append(step)
        return outputs

    def _hold(self, t: Tensor) -> Held:
        held = Held(t)
        if _has_storage(t):
            self.held.setdefault(t.untyped_storage()._cdata, []).append(held)
        return held

    # ---- Views ----

    def _note_views(self, func, args, kwargs, result) -> None:
        base = args[0]
        # A number, which torch hands to its functions as well, or what lies nowhere: no view.
        if not isinstance(base, Tensor) or not _has_storage(base):
            return
        storage = self._storage_of(base)
        for t, function, rest in each_view(func, args, kwargs, result):
            at, parent = geometry(t), geometry(base)
            if at in (parent, storage.whole) or at in storage.views:
                continue
            storage.views[at] = View(storage.whole if function is None else parent, function, rest)
            storage.read(at, self._step)

    # ---- Writes ----

    def _run_writing(self, func, written, args, kwargs):
        if torch.Tag.inplace_view in func.tags:
            return self._reshape(func, args, kwargs)
        named = [
            (i, a.name)
            for i, (a, w) in enumerate(zip(func._schema.arguments, written, strict=True))
            if w
        ]
        targets = [args[i] if i < len(args) else kwargs[name] for i, name in named]
        for target in leaves(targets):
            self._keep(target)
        given = self._operands((args, kwargs))
        if not any(isinstance(v, Value) for v in given.values()):
            return func(*args, **kwargs)
        if written[0] is False or any(written[1:]):
            raise Untraceable(f"{func} writes into more than its first argument")
        target = targets[0]
        name = func._schema.name.split("::")[1]
        others = {k: v for k, v in given.items() if k != id(target)}
        if not isinstance(given[id(target)], Value):
            with self.pause():  # what a function reads of it goes with the write
                given[id(target)] = target.clone()
        result = func(*args, **kwargs)
        if name == "copy_":
            after = self._copied(given[id(args[1])], target)
        elif name in ("zero_", "fill_") and not any(isinstance(v, Value) for v in others.values()):
            after = None
        else:
            after = self._emit_twin(func, args, kwargs, target, given)
        self._write(target, after)
        return result

    def _emit_twin(self, func, args, kwargs, target, given) -> Value:
        other, shape = twin(func), tuple(target.shape)
        dtype = result_dtype(other, args, kwargs)
        args, kwargs = self._named(args, given), self._named(kwargs, given)
        made = self._emit(other, args, kwargs, [(shape, dtype)])[0]
        return self._cast(made, target.dtype)

    def _cast(self, value: Value, dtype: torch.dtype) -> Value:
        if value.dtype == dtype:
            return value
        return self._emit(
            aten._to_copy.default, (value,), {"dtype": dtype}, [(value.shape, dtype)]
        )[0]

    def _copied(self, value: Any, target: Tensor) -> Value | None:
        if not isinstance(value, Value):
            return None
        shape = tuple(target.shape)
        value = self._cast(value, target.dtype)
        if value.shape != shape:
            value = self._step(aten.expand.default, (value, list(shape)), (shape, target.dtype))
        return value

    def _write(self, target: Tensor, after: Value | None) -> None:
        """`after` is what the target holds from now on, and with it all that lies there."""

        def snapshot(at: Geometry) -> Held:
            with self.pause():
                return self._hold(shown(target.untyped_storage(), at, target.device).clone())

        self._storage_of(target).write(geometry(target), after, self._step, snapshot)

    def _keep(self, target: Tensor) -> None:
        """Before a write: constants that steps hold stay what they were."""
        for held in self.held.pop(target.untyped_storage()._cdata, ()):
            with self.pause():
                held.tensor = held.tensor.clone()

    def _reshape(self, func, args, kwargs):
        """A tensor becomes a view of what it was."""
        with self.pause():
            before = aten.alias.default(args[0])
        result = func(*args, **kwargs)
        self._note_views(twin(func), (before, *args[1:]), kwargs, args[0])
        return result


@cache
def _written(func: Any) -> tuple[bool, ...]:
    """Which arguments an operator writes into."""
    arguments = func._schema.arguments
    return tuple(a.alias_info is not None and a.alias_info.is_write for a in arguments)


@cache
def _views(func: Any) -> bool:
    """Whether an operator's results may be views."""
    return any(r.alias_info is not None for r in func._schema.returns)


def _has_storage(t: Tensor) -> bool:
    return t.layout == torch.strided and not t._is_zerotensor()


def _listed(result: Any) -> list:
    return list(result) if isinstance(result, tuple | list) else [result]


# What takes of a tensor its shape and kind alone.
_FACTORIES = {
    *(aten.zeros_like, aten.ones_like, aten.full_like, aten.empty_like),
    *(aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty, aten.new_empty_strided),
}


def _settled(step: Step) -> Step:
    args, kwargs = _unheld(step.args), _unheld(step.kwargs)
    return replace(step, args=args, kwargs=kwargs)


def _unheld(value: Any) -> Any:
    if isinstance(value, Held):
        return value.tensor
    if isinstance(value, tuple | list):
        return type(value)([_unheld(v) for v in value])
    if isinstance(value, dict):
        return {k: _unheld(v) for k, v in value.items()}
    return value
