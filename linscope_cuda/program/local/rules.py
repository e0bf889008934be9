"""Within which box each function's result is not zero, and what computes it there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from ...operators import reference
from ..step import Step, Value, substituted
from ..views import ORDERS, RESHAPES
from .axis import MATRICES, axes_of
from .bits import codes
from .box import Box, fit, hull, margins, sizes, slices, whole
from .part import Bound, Context, Part, Reads, Rule
from .reshaping import reshaped
from .windows import convolution, max_pool, max_pool_transpose

aten = torch.ops.aten
linscope = torch.ops.linscope

Boxes = Sequence[Box | None]


def everything(step: Step, live: Context) -> Bound:
    """Any function: all of its result may be other than zero, and all of what it reads is taken."""
    reads = Reads.of(step, live)
    known = {v.number: live.constant(v) for v in step.operands if _still(v, live)}
    at, kwargs = step.args, step.kwargs
    of = whole(step.output.shape)

    def run(by: Any, given: Sequence[Tensor | None], cuts: Any) -> Tensor:
        some = next(t for t in given if t is not None)
        full = [
            some.new_zeros(v.shape, dtype=v.dtype) if t is None else fit(t, m)
            for t, m, v in zip(given, by, reads.values, strict=True)
        ]

        def tensor(v: Any) -> Any:
            where = reads.place(v)
            if where is not None:
                return full[where]
            return known.get(v.number) if isinstance(v, Value) else v

        return step.function(*substituted(at, tensor), **substituted(kwargs, tensor))

    def bound(boxes: Boxes) -> Part | None:
        if all(b is None for b in boxes):
            return None
        by = [
            None if b is None else margins(b, whole(v.shape))
            for b, v in zip(boxes, reads.values, strict=True)
        ]
        return Part(of, partial(run, by), tuple(by), work=_work(step))

    return bound


def _still(v: Any, live: Context) -> bool:
    return isinstance(v, Value) and not live(v)


def _work(step: Step) -> float:
    """The multiplications of a step as a whole, as far as it says."""
    size = prod(step.output.shape)
    if step.function in (aten.mm.default, aten.bmm.default):
        return float(size * step.args[0].shape[-1])
    return 4.0 * size


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
        return Part(box, partial(run, by), (tuple(by), *map(_absent, boxes)), cuts, _area(box))

    return bound


def _absent(box: Box | None) -> bool:
    return box is None


def _area(box: Box) -> float:
    return 4.0 * prod(sizes(box))


def _unbroadcast(box: Box, shape: Sequence[int]) -> Box:
    """A box of a result, as one of an operand of a shape that broadcasts to it."""
    of = box[len(box) - len(shape) :]
    return tuple([(0, 1) if n == 1 else b for n, b in zip(shape, of, strict=True)])


def _cut(live: Context, v: Any, box: Box) -> Tensor:
    t = live.constant(v)
    return t[slices(_unbroadcast(box, t.shape), whole(t.shape))]


def _expand(step: Step, live: Context) -> Bound:
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
        return Part(made, lambda given, cuts: _of(given).expand(size), tuple(size))

    return bound


def _of(given: Sequence[Tensor | None]) -> Tensor:
    (x,) = given
    assert x is not None
    return x


def _relu(step: Step, live: Context) -> Bound:
    x, decision, slope, last = step.args
    packed = live.constant(decision)

    def run(given: Sequence[Tensor | None], cuts: Sequence[Tensor]) -> Tensor:
        return reference.relu_apply(cuts[0], _of(given), slope)

    return _by_piece(run, lambda box: codes(packed, 1, x.shape, box, last).bool())


def _clamp(step: Step, live: Context) -> Bound:
    x, decision, low, high, last = step.args
    packed = live.constant(decision)

    def run(given: Sequence[Tensor | None], cuts: Sequence[Tensor]) -> Tensor:
        return reference.clamp_apply(cuts[0], _of(given), low, high)

    return _by_piece(run, lambda box: codes(packed, 2, x.shape, box, last))


def _gate(step: Step, live: Context) -> Bound:
    _, gate, shift = step.args

    def run(given: Sequence[Tensor | None], cuts: Sequence[Tensor]) -> Tensor:
        return reference.gate_frozen(_of(given), cuts[0], shift)

    return _by_piece(run, partial(_cut, live, gate))


def _norm(step: Step, live: Context) -> Bound:
    _, mean, scale, shift = step.args
    if mean is not None or shift is not None:
        raise ValueError("a linear line has no norm that subtracts")

    def run(given: Sequence[Tensor | None], cuts: Sequence[Tensor]) -> Tensor:
        return reference.instance_norm_frozen(_of(given), None, cuts[0], None)

    return _by_piece(run, lambda box: live.constant(scale)[:, slice(*box[1])])


def _by_piece(run: Any, cut: Callable[[Box], Tensor]) -> Bound:
    """A function of one value whose box stays what it was, by a decision about each entry."""

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        return None if box is None else Part(box, run, None, (partial(cut, box),), _area(box))

    return bound


def _permute(step: Step, live: Context) -> Bound:
    back = ORDERS[step.function](len(step.args[0].shape), *step.args[1:])
    order = sorted(range(len(back)), key=back.__getitem__)

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None:
            return None
        made = tuple([box[d] for d in order])
        return Part(made, lambda given, cuts: _of(given).permute(order))

    return bound


def _along_axes(step: Step, live: Context) -> Bound | None:
    if step.function is aten.roll.default and not (len(step.args) > 2 and step.args[2]):
        return None  # of all entries in a row
    axes = axes_of(step)

    def run(found: Any, given: Sequence[Tensor | None], cuts: Any) -> Tensor:
        x = _of(given)
        for dim, f in found:
            x = f(x, dim)
        return x

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None:
            return None
        made, keys, found = list(box), [], []
        for dim, axis in axes.items():
            reached = axis.reach(*box[dim])
            if reached is None:
                return None
            key, f = axis.between(box[dim], reached)
            made[dim] = reached
            keys.append(key)
            found.append((dim, f))
        return Part(tuple(made), partial(run, found), tuple(keys), work=_area(tuple(made)))

    return bound


def _select(step: Step, live: Context) -> Bound:
    x, dim, index = step.args
    dim, index = dim % len(x.shape), index % x.shape[dim % len(x.shape)]

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None or not box[dim][0] <= index < box[dim][1]:
            return None
        made, at = (*box[:dim], *box[dim + 1 :]), index - box[dim][0]
        return Part(made, lambda given, cuts: _of(given).select(dim, at), at)

    return bound


def _select_backward(step: Step, live: Context) -> Bound:
    _, shape, dim, index = step.args
    dim = dim % len(shape)
    index %= shape[dim]

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None:
            return None
        made = (*box[:dim], (index, index + 1), *box[dim:])
        return Part(made, lambda given, cuts: _of(given).unsqueeze(dim))

    return bound


def _scatter(step: Step, live: Context) -> Bound | None:
    """slice_scatter: what a slice of `self` becomes."""
    names = ("self", "src", "dim", "start", "end", "step")
    at = {"dim": 0, "start": None, "end": None, "step": 1, **step.kwargs}
    at |= dict(zip(names, step.args, strict=False))
    shape, dim = step.output.shape, at["dim"] % len(step.output.shape)
    start, end, stride = slice(at["start"], at["end"], at["step"]).indices(shape[dim])
    end = max(start, end)
    if stride != 1:
        return None
    reads = Reads.of(step, live)
    kept, placed = reads.place(at["self"]), reads.place(at["src"])

    def run(by: Any, where: Any, given: Sequence[Tensor | None], cuts: Any) -> Tensor:
        x = None if kept is None else given[kept]
        y = None if placed is None else given[placed]
        some = x if y is None else y
        assert some is not None
        x = some.new_zeros(where[2]) if x is None else fit(x, by[0])
        if where[0] >= where[1]:
            return x
        size = [*where[2][:dim], where[1] - where[0], *where[2][dim + 1 :]]
        y = some.new_zeros(size) if y is None else fit(y, by[1])
        return torch.slice_scatter(x, y, dim, where[0], where[1])

    def bound(boxes: Boxes) -> Part | None:
        x = None if kept is None else boxes[kept]
        y = None if placed is None else boxes[placed]
        if y is not None:
            a, b = y[dim]
            y = (*y[:dim], (a + start, b + start), *y[dim + 1 :])
        there = [b for b in (x, y) if b is not None]
        if not there:
            return None
        box = hull(there)
        low, high = max(start, box[dim][0]), min(end, box[dim][1])
        part = (*box[:dim], (low, max(low, high)), *box[dim + 1 :])
        by = (
            None if x is None else margins(x, box),
            None if y is None else margins(y, part),
        )
        where = (low - box[dim][0], high - box[dim][0], tuple(sizes(box)))
        key = (by, where, x is None, y is None)
        return Part(box, partial(run, by, where), key, work=_area(box))

    return bound


def _total(step: Step, live: Context) -> Bound:
    """sum and mean, of all or of some dimensions."""
    x = step.args[0]
    given = step.args[1] if len(step.args) > 1 else step.kwargs.get("dim")
    given = [given] if isinstance(given, int) else given
    dims = [d % len(x.shape) for d in given or range(len(x.shape))]
    keep = step.args[2] if len(step.args) > 2 else step.kwargs.get("keepdim", False)
    count = prod(x.shape[d] for d in dims)
    mean = step.function in (aten.mean.default, aten.mean.dim)
    dtype = step.output.dtype

    def run(given: Sequence[Tensor | None], cuts: Any) -> Tensor:
        y = torch.sum(_of(given), dims, keep, dtype=dtype) if dims else _of(given)
        return y / count if mean else y

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None:
            return None
        along = [(0, 1) if d in dims else b for d, b in enumerate(box)]
        made = tuple(along if keep else [b for d, b in enumerate(box) if d not in dims])
        return Part(made, run, work=_area(box))

    return bound


def _joined(step: Step, live: Context) -> Bound:
    """cat and stack; constants among their parts are zeros."""
    parts, *dim = step.args
    at = (dim[0] if dim else step.kwargs.get("dim", 0)) % len(step.output.shape)
    stacked = step.function is aten.stack.default
    parts = [p for p in parts if tuple(p.shape) != (0,)]
    reads = Reads.of(step, live)
    extents = [1 if stacked else p.shape[at] for p in parts]
    offsets = [sum(extents[:i]) for i in range(len(parts))]

    def run(pieces: Any, given: Sequence[Tensor | None], cuts: Any) -> Tensor:
        some = next(t for t in given if t is not None)
        made = []
        for where, by, size in pieces:
            t = None if where is None else given[where]
            if t is None:
                made.append(some.new_zeros(size, dtype=step.output.dtype))
            else:
                t = t.unsqueeze(at) if stacked else t
                made.append(fit(t, by).to(step.output.dtype))
        return made[0] if len(made) == 1 else torch.cat(made, at)

    def shifted(box: Box | None, by: int) -> Box | None:
        if box is None:
            return None
        if stacked:
            return (*box[:at], (by, by + 1), *box[at:])
        return (*box[:at], (box[at][0] + by, box[at][1] + by), *box[at + 1 :])

    def bound(boxes: Boxes) -> Part | None:
        numbers = [reads.place(p) for p in parts]
        found = [
            None if i is None else shifted(boxes[i], o)
            for i, o in zip(numbers, offsets, strict=True)
        ]
        there = [b for b in found if b is not None]
        if not there:
            return None
        box = hull(there)
        pieces = []
        for number, b, o, n in zip(numbers, found, offsets, extents, strict=True):
            low, high = max(o, box[at][0]), min(o + n, box[at][1])
            if low >= high:
                continue
            part = (*box[:at], (low, high), *box[at + 1 :])
            by = None if b is None else margins(b, part)
            pieces.append((number if b is not None else None, by, tuple(sizes(part))))
        return Part(box, partial(run, pieces), tuple(pieces), work=_area(box))

    return bound


def _shuffle(step: Step, live: Context) -> Bound:
    _, r = step.args

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None:
            return None
        *lead, (c0, c1), (h0, h1), (w0, w1) = box
        channels = c0 // r**2, -(-c1 // r**2)
        by = margins(box, (*lead, (channels[0] * r**2, channels[1] * r**2), *box[-2:]))
        made = (*lead, channels, (h0 * r, h1 * r), (w0 * r, w1 * r))
        return Part(
            made,
            lambda given, cuts: torch.pixel_shuffle(fit(_of(given), by), r),
            by,
            work=_area(made),
        )

    return bound


def _unshuffle(step: Step, live: Context) -> Bound:
    _, r = step.args

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None:
            return None
        *lead, (c0, c1), (h0, h1), (w0, w1) = box
        pixels = (h0 // r, -(-h1 // r)), (w0 // r, -(-w1 // r))
        by = margins(box, (*lead, (c0, c1), *[(a * r, b * r) for a, b in pixels]))
        made = (*lead, (c0 * r**2, c1 * r**2), *pixels)
        return Part(
            made,
            lambda given, cuts: torch.pixel_unshuffle(fit(_of(given), by), r),
            by,
            work=_area(made),
        )

    return bound


def _product(step: Step, live: Context) -> Bound | None:
    """Rows times a constant matrix."""
    a, matrix = step.args
    if not live(a) or live(matrix):
        return None

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None:
            return None
        by = margins(box, (box[0], (0, a.shape[1])))
        made = (box[0], (0, step.output.shape[1]))
        rows = box[0][1] - box[0][0]
        work = float(rows * prod(live.constant(matrix).shape))
        return Part(
            made,
            lambda given, cuts: torch.mm(fit(_of(given), by), live.constant(matrix)),
            by,
            work=work,
        )

    return bound


RULES: dict[Any, Rule] = {
    aten.convolution.default: convolution,
    linscope.max_pool2d_frozen.default: max_pool,
    linscope.max_pool2d_frozen_transpose.default: max_pool_transpose,
    linscope.relu_frozen.default: _relu,
    linscope.clamp_frozen.default: _clamp,
    linscope.gate_frozen.default: _gate,
    linscope.instance_norm_frozen.default: _norm,
    aten.expand.default: _expand,
    **dict.fromkeys(ORDERS, _permute),
    **dict.fromkeys(RESHAPES, reshaped),
    **dict.fromkeys(MATRICES, _along_axes),
    aten.select.int: _select,
    aten.select_backward.default: _select_backward,
    aten.slice_scatter.default: _scatter,
    **dict.fromkeys(
        [aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim], _total
    ),
    **dict.fromkeys([aten.cat.default, aten.stack.default], _joined),
    aten.pixel_shuffle.default: _shuffle,
    aten.pixel_unshuffle.default: _unshuffle,
    aten.mm.default: _product,
    **dict.fromkeys(
        [aten.clone.default, aten._to_copy.default, aten.alias.default, aten.detach.default],
        pointwise,
    ),
}


def bind(step: Step, live: Context) -> Bound:
    """How a step runs within boxes."""
    rule = RULES.get(step.function)
    if rule is None and torch.Tag.pointwise in getattr(step.function, "tags", ()):
        rule = pointwise
    bound = None if rule is None or not step.single else rule(step, live)
    return everything(step, live) if bound is None else bound
