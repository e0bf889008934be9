"""Functions of one entry each of what they read, within boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...operators import reference
from ..step import Step, Value, substituted
from .bits import codes
from .box import Box, fit, hull, margins, sizes, slices, whole
from .part import Bound, Context, Part, Reads, area, only

Boxes = Sequence[Box | None]


def pointwise(step: Step, live: Context) -> Bound:
    """Functions of one entry each of what they read, broadcast as torch does."""
    reads, shape = Reads.of(step, live), step.output.shape
    constants = [v for v in step.operands if not live(v)]

    def broadcast(box: Box, v: Value) -> Box:
        ahead = len(shape) - len(v.shape)
        along = [
            (0, m) if n == 1 else b for n, m, b in zip(v.shape, shape[ahead:], box, strict=True)
        ]
        return (*whole(shape[:ahead]), *along)

    def run(by: Any, given: Sequence[Tensor | None], cuts: Sequence[Tensor]) -> Tensor:
        some = next(t for t in given if t is not None)
        fitted = [
            some.new_zeros((), dtype=v.dtype).expand(m) if t is None else fit(t, m)
            for t, m, v in zip(given, by, reads.values, strict=True)
        ]
        cut = dict(zip(map(id, constants), cuts, strict=True))

        def tensor(v: Any) -> Any:
            where = reads.place(v)
            return cut[id(v)] if where is None else fitted[where]

        return step.function(*substituted(step.args, tensor), **substituted(step.kwargs, tensor))

    def bound(boxes: Boxes) -> Part | None:
        there = [broadcast(b, v) for b, v in zip(boxes, reads.values, strict=True) if b is not None]
        if not there:
            return None
        box = hull(there)
        by = []
        for b, v in zip(boxes, reads.values, strict=True):
            own = _unbroadcast(box, v.shape)
            by.append(tuple(sizes(own)) if b is None else margins(b, own))
        cuts = tuple(partial(_cut, live, v, box) for v in constants)
        return Part(box, partial(run, by), (tuple(by), *map(_absent, boxes)), cuts, area(box))

    return bound


def _absent(box: Box | None) -> bool:
    return box is None


def _unbroadcast(box: Box, shape: Sequence[int]) -> Box:
    """A box of a result, as one of an operand of a shape that broadcasts to it."""
    of = box[len(box) - len(shape) :]
    return tuple([(0, 1) if n == 1 else b for n, b in zip(shape, of, strict=True)])


def _cut(live: Context, v: Any, box: Box) -> Tensor:
    t = live.constant(v)
    return t[slices(_unbroadcast(box, t.shape), whole(t.shape))]


def expand(step: Step, live: Context) -> Bound:
    x, shape = step.args[0], step.output.shape
    ahead = len(shape) - len(x.shape)

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None:
            return None
        along = [
            (0, m) if n == 1 else b for n, m, b in zip(x.shape, shape[ahead:], box, strict=True)
        ]
        made = (*whole(shape[:ahead]), *along)
        size = sizes(made)
        return Part(made, lambda given, cuts: only(given).expand(size), tuple(size))

    return bound


def relu(step: Step, live: Context) -> Bound:
    x, decision, slope, last = step.args
    packed = live.constant(decision)

    def run(given: Sequence[Tensor | None], cuts: Sequence[Tensor]) -> Tensor:
        return reference.relu_apply(cuts[0], only(given), slope)

    return _by_piece(run, lambda box: codes(packed, 1, x.shape, box, last).view(torch.bool))


def clamp(step: Step, live: Context) -> Bound:
    x, decision, low, high, last = step.args
    packed = live.constant(decision)

    def run(given: Sequence[Tensor | None], cuts: Sequence[Tensor]) -> Tensor:
        return reference.clamp_apply(cuts[0], only(given), low, high)

    return _by_piece(run, lambda box: codes(packed, 2, x.shape, box, last))


def gate(step: Step, live: Context) -> Bound:
    _, gate, shift = step.args

    def run(given: Sequence[Tensor | None], cuts: Sequence[Tensor]) -> Tensor:
        return reference.gate_frozen(only(given), cuts[0], shift)

    return _by_piece(run, partial(_cut, live, gate))


def norm(step: Step, live: Context) -> Bound:
    _, mean, scale, shift = step.args
    if mean is not None or shift is not None:
        raise ValueError("a linear line has no norm that subtracts")

    def run(given: Sequence[Tensor | None], cuts: Sequence[Tensor]) -> Tensor:
        return reference.instance_norm_frozen(only(given), None, cuts[0], None)

    return _by_piece(run, lambda box: live.constant(scale)[:, slice(*box[1])])


def _by_piece(run: Any, cut: Callable[[Box], Tensor]) -> Bound:
    """A function of one value whose box stays what it was, by a decision about each entry."""

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        return None if box is None else Part(box, run, None, (partial(cut, box),), area(box))

    return bound
