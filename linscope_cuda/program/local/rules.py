"""Within which box each function's result is not zero, and what computes it there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..step import Step, Value, substituted
from ..views import ORDERS, RESHAPES
from .axis import AXES
from .box import Box, fit, margins, sizes, whole
from .merged import along_last, placed, taken
from .numbers import place, take
from .part import Bound, Context, Part, Reads, Rule, only
from .pointwise import clamp, expand, gate, norm, pointwise, relu
from .reshaping import reshaped
from .shapes import (
    along_axes,
    joined,
    permute,
    scatter,
    select,
    select_backward,
    shuffle,
    total,
    unshuffle,
)
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


def _along_last(step: Step, live: Context) -> Bound | None:
    """A constant matrix along the last dimension."""
    x, matrix = step.args
    if not live(x) or live(matrix):
        return None

    def bound(boxes: Boxes) -> Part | None:
        (box,) = boxes
        if box is None:
            return None
        by = margins(box, (*box[:-1], (0, x.shape[-1])))
        made = (*box[:-1], (0, step.output.shape[-1]))
        weight = live.constant(matrix)
        work = float(prod(sizes(made)) * x.shape[-1])
        return Part(made, lambda given, cuts: fit(only(given), by) @ weight, by, work=work)

    return bound


RULES: dict[Any, Rule] = {
    aten.convolution.default: convolution,
    linscope.max_pool2d_frozen.default: max_pool,
    linscope.max_pool2d_frozen_transpose.default: max_pool_transpose,
    linscope.relu_frozen.default: relu,
    linscope.clamp_frozen.default: clamp,
    linscope.gate_frozen.default: gate,
    linscope.instance_norm_frozen.default: norm,
    aten.expand.default: expand,
    **dict.fromkeys(ORDERS, permute),
    **dict.fromkeys(RESHAPES, reshaped),
    **dict.fromkeys(AXES, along_axes),
    aten.select.int: select,
    aten.select_backward.default: select_backward,
    aten.slice_scatter.default: scatter,
    **dict.fromkeys(
        [aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim], total
    ),
    **dict.fromkeys([aten.cat.default, aten.stack.default], joined),
    aten.pixel_shuffle.default: shuffle,
    aten.pixel_unshuffle.default: unshuffle,
    **dict.fromkeys([aten.mm.default, along_last], _along_last),
    taken: take,
    placed: place,
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
