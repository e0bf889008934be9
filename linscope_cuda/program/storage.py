"""What lies in a tensor's storage while a line is recorded: values, seen as wholes and as parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .step import Value
from .views import INVERSES, ORDERS, RESHAPES, SCATTERS, Geometry, View, places

aten = torch.ops.aten

# (function, args, shape and dtype of its result) -> the value of a new step.
Emit = Callable[[Any, tuple, tuple[tuple[int, ...], torch.dtype]], Value]
# What lies at a place as a constant that steps may hold.
Snapshot = Callable[[Geometry], Any]


class Storage:
    """A value, or constants while it is None; the views that were made of it, and those values of
    theirs that still hold.
    """

    def __init__(self, whole: Geometry, value: Value | None):
        self.whole = whole
        self.value = value
        self.views: dict[Geometry, View] = {}
        self.seen: dict[Geometry, Value] = {}

    def read(self, at: Geometry, emit: Emit) -> Value | None:
        """What lies at a place; None if constants do."""
        if at == self.whole or self.value is None:
            return self.value
        if at not in self.seen:
            view = self._view(at)
            parent = self.read(view.parent, emit)
            if view.function is None:
                taken = (_flat(parent, emit), [places(view.parent, at)])
                self.seen[at] = emit(aten.index.Tensor, taken, (at.shape, at.dtype))
            else:
                # Strides may be others where the line runs: a view's size alone is meant.
                shapes = view.function in RESHAPES
                function = aten.reshape.default if shapes else view.function
                made = (parent, list(at.shape)) if shapes else (parent, *view.args)
                self.seen[at] = emit(function, made, (at.shape, at.dtype))
        return self.seen[at]

    def write(self, at: Geometry, after: Value | None, emit: Emit, snapshot: Snapshot) -> None:
        """`after`, or constants, lie at a place from now on, and with it in all that shows it."""
        if at == self.whole:
            self.value, self.seen = after, {}
            return
        if after is None and self.value is None:
            return
        part, here = snapshot(at) if after is None else after, at
        while here != self.whole:
            view = self._view(here)
            before = self.read(view.parent, emit)
            before = snapshot(view.parent) if before is None else before
            part = _put(view, here, before, part, emit)
            here = view.parent
        self.value, self.seen = part, {}
        if after is not None:
            self.seen[at] = after

    def _view(self, at: Geometry) -> View:
        return self.views.get(at) or View(self.whole, None, ())


def _flat(value: Any, emit: Emit) -> Value:
    size = torch.Size(value.shape).numel()
    return emit(aten.reshape.default, (value, [-1]), ((size,), value.dtype))


def _put(view: View, at: Geometry, whole: Any, part: Any, emit: Emit) -> Value:
    """The viewed tensor with `part` in place of what the view shows."""
    parent = view.parent
    like = parent.shape, parent.dtype
    if view.function in SCATTERS:
        return emit(SCATTERS[view.function], (whole, part, *view.args), like)
    if view.function in INVERSES:
        return emit(INVERSES[view.function], (part,), like)
    if view.function in ORDERS:
        back = ORDERS[view.function](len(parent.shape), *view.args)
        return emit(aten.permute.default, (part, back), like)
    if view.function in RESHAPES:
        return emit(aten.reshape.default, (part, list(parent.shape)), like)
    size = torch.Size(parent.shape).numel()
    put = (_flat(whole, emit), [places(parent, at)], part)
    flat = emit(aten.index_put.default, put, ((size,), parent.dtype))
    return emit(aten.reshape.default, (flat, list(parent.shape)), like)
