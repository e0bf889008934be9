"""y = A x + c of each step apart: the program of A alone, and what each step adds.

F v and F^T u need A without subtraction: a small column of F would drown in a large residual.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .derivative import push_forward
from .line import Line
from .live import Live
from .step import Step, Value, substituted
from .views import ORDERS, RESHAPES, Untraceable
from .writer import Writer, kind

aten = torch.ops.aten
linscope = torch.ops.linscope

IsLive = Callable[[Any], bool]  # whether a value depends on the line's input


@dataclass(frozen=True)
class Affine:
    """How a step is taken apart.

    `linear(writer, step, live)` gives the value of A x, emitting what it is made of; `offset(step,
    live)` gives c, or what broadcasts to it, None where there is none. Without `offset` c is the
    step's own answer to zeros.
    """

    linear: Callable[[Writer, Step, IsLive], Value]
    offset: Callable[[Step, Live], Tensor | None] | None = None


def linear_part(affine: Line) -> Line:
    """The program without what its steps add, F x of F x + r; what is made of a value has its
    number.
    """
    writer, live = Writer(affine), Live(affine)
    for step in affine.steps:
        apart = affine_of(step, live)
        if apart is None:
            writer.steps.append(step)
            continue
        writer.at(step)
        before = len(writer.steps)
        writer.name(apart.linear(writer, step, live), step.output, before)
    return writer.line(affine.input, affine.output)


def affine_of(step: Step, live: Live) -> Affine | None:
    """How a step is taken apart; None where it adds nothing, or does not depend on the input."""
    if not any(map(live, step.outputs)) or step.function in LINEAR:
        return None
    if step.function not in AFFINE and not _at_zero(live.resolved(step), live).any():
        return None
    return AFFINE.get(step.function, Affine(_by_derivative))


def offset(step: Step, live: Live) -> Tensor | None:
    """c of a step, or what broadcasts to it; None if it adds nothing."""
    affine = affine_of(step, live)
    if affine is None:
        return None
    c = (affine.offset or _at_zero)(live.resolved(step), live)
    return c if c is not None and c.any() else None


def _at_zero(step: Step, live: Live) -> Tensor:
    def zero(v: Any) -> Any:
        return torch.zeros(v.shape, dtype=v.dtype, device=v.device) if isinstance(v, Value) else v

    args, kwargs = substituted(step.args, zero), substituted(step.kwargs, zero)
    with torch.no_grad():
        y = step.function(*args, **kwargs)
    if isinstance(y, Tensor):
        return y
    made = [t for t, v in zip(y, step.outputs, strict=True) if v is not None]
    return next((t for t in made if t.any()), made[0])


def _by_derivative(writer: Writer, step: Step, live: IsLive) -> Value:
    """A x of any function, as its derivative, which is A everywhere."""
    moving = list({v.number: v for v in step.operands if live(v)}.values())
    still = [v for v in step.operands if isinstance(v, Value) and not live(v)]
    numbers = [v.number for v in (*moving, *still)]

    def pushed(*given: Tensor) -> Tensor:
        def function(*xs: Tensor) -> Tensor:
            table = dict(zip(numbers, (*xs, *given[len(moving) :]), strict=True))

            def tensor(v: Any) -> Any:
                return table[v.number] if isinstance(v, Value) else v

            return step.function(
                *substituted(step.args, tensor), **substituted(step.kwargs, tensor)
            )

        steps = given[: len(moving)]
        return push_forward(function, tuple(map(torch.zeros_like, steps)), steps)[1]

    if any(v is not None for v in step.outputs if v is not step.output):
        raise Untraceable(f"{step.label or step.function} adds something to one of several results")
    try:
        return writer.insert(pushed, *moving, *still)[0]
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise Untraceable(
            f"{step.label or step.function} cannot be taken apart: {reason}"
        ) from error


def _with(**changes: Any) -> Callable[[Writer, Step, IsLive], Value]:
    """The same function with other arguments, by name in its schema."""

    def linear(writer: Writer, step: Step, live: IsLive) -> Value:
        args, kwargs = list(step.args), dict(step.kwargs)
        names = [a.name for a in step.function._schema.arguments]
        for name, value in changes.items():
            at = names.index(name)
            if at < len(args):
                args[at] = value
            elif name in kwargs:
                kwargs[name] = value
        return writer.emit(step.function, *args, like=kind(step.output), **kwargs)

    return linear


def _without_constants(*names: str) -> Callable[[Writer, Step, IsLive], Value]:
    """The same function, with zeros for constants among the arguments of these names."""

    def linear(writer: Writer, step: Step, live: IsLive) -> Value:
        args, kwargs = list(step.args), dict(step.kwargs)
        schema = [a.name for a in step.function._schema.arguments]
        for name in names:
            at = schema.index(name)
            if at < len(args):
                args[at] = _zeroed(writer, args[at], live)
            elif name in kwargs:
                kwargs[name] = _zeroed(writer, kwargs[name], live)
        return writer.emit(step.function, *args, like=kind(step.output), **kwargs)

    return linear


def _zeroed(writer: Writer, value: Any, live: IsLive) -> Any:
    if isinstance(value, Value):
        return (
            value if live(value) else writer.emit(aten.zeros_like.default, value, like=kind(value))
        )
    if isinstance(value, Tensor):
        return value.new_zeros(()).expand(value.shape)
    if isinstance(value, tuple | list):
        return type(value)([_zeroed(writer, v, live) for v in value])
    return type(value)(0) if isinstance(value, int | float) else value


def _sum(writer: Writer, step: Step, live: IsLive) -> Value:
    """x + alpha y, of which one or both depend on the input."""
    first, second, *more = step.args
    alpha = more[0] if more else step.kwargs.get("alpha", 1)
    name = step.function._schema.name.split("::")[1]
    signs = {"add": (1, alpha), "sub": (1, -alpha), "rsub": (-alpha, 1)}[name]
    if live(first) and live(second):
        return writer.emit(step.function, *step.args, like=kind(step.output), **step.kwargs)
    x, sign = (first, signs[0]) if live(first) else (second, signs[1])
    return _as(writer, writer.times(x, sign), step.output)


def _as(writer: Writer, x: Value, like: Value) -> Value:
    """x in the dtype and shape of another value, to which it broadcasts."""
    x = writer.cast(x, like.dtype)
    if x.shape != like.shape:
        x = writer.emit(aten.expand.default, x, list(like.shape), like=kind(like))
    return x


def _sum_offset(step: Step, live: Live) -> Tensor | None:
    if live(step.args[0]) and live(step.args[1]):
        return None
    one = replace(step, args=tuple(_pixel(a) if live(a) else a for a in step.args))
    return _at_zero(one, live)


def _pixel(v: Value) -> Value:
    return replace(v, shape=(1,) * len(v.shape))


def _convolution_offset(step: Step, live: Live) -> Tensor | None:
    bias = step.args[2]
    return None if bias is None else bias.view(-1, *[1] * (len(step.output.shape) - 2))


def _batch_norm(writer: Writer, step: Step, live: IsLive) -> Value:
    x, weight, _, _, variance, *_, eps = step.args[:8]
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    scale = scale.to(x.dtype).view(-1, *[1] * (len(x.shape) - 2))
    return writer.emit(aten.mul.Tensor, x, scale, like=kind(step.output))


def _channel_offset(step: Step, live: Live) -> Tensor:
    """c of a function that treats all pixels of a channel alike."""
    x = step.args[0]
    pixel = replace(x, shape=(1, x.shape[1], *[1] * (len(x.shape) - 2)))
    return _at_zero(replace(step, args=(pixel, *step.args[1:])), live)


def _gate_offset(step: Step, live: Live) -> Tensor:
    shift, x = step.args[2], step.args[0]
    return torch.full((), shift, dtype=x.dtype, device=x.device)


def _product_sum(product: Any = None) -> Affine:
    """beta c + alpha a b, where `product` is a b alone."""

    def linear(writer: Writer, step: Step, live: IsLive) -> Value:
        c, a, b = step.args[:3]
        if live(c) and not live(a) and not live(b):
            return _as(writer, writer.times(c, step.kwargs.get("beta", 1)), step.output)
        if live(c) or product is None:
            return _without_constants("self")(writer, step, live)
        y = writer.emit(product, a, b, like=kind(step.output))
        return writer.times(y, step.kwargs.get("alpha", 1))

    def offset(step: Step, live: Live) -> Tensor | None:
        c, *factors = step.args[:3]
        if live(c):
            return None if any(map(live, factors)) else _at_zero(step, live)
        return c * step.kwargs.get("beta", 1)

    return Affine(linear, offset)


_NORMS = [
    getattr(aten, name).default
    for name in ("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm")
] + [aten._native_batch_norm_legit_no_training.default]

# Functions that add nothing of their own.
LINEAR: set[Any] = {
    *(aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar, aten.neg.default),
    *(aten.mm.default, aten.bmm.default, aten.mv.default, aten.dot.default),
    *RESHAPES,
    *ORDERS,
    *(aten.expand.default, aten.clone.default, aten._to_copy.default, aten.alias.default),
    *(aten.slice.Tensor, aten.select.int, aten.unfold.default, aten.diagonal.default),
    *(aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim),
    *(aten.gather.default, aten.index.Tensor, aten.index_select.default, aten.roll.default),
    *(aten.flip.default, aten.cumsum.default, aten.tril.default, aten.triu.default),
    *(aten.avg_pool2d.default, aten.avg_pool3d.default, aten._adaptive_avg_pool2d.default),
    *(aten._adaptive_avg_pool3d.default, aten.im2col.default, aten.col2im.default),
    *(aten.reflection_pad1d.default, aten.reflection_pad2d.default),
    *(aten.replication_pad1d.default, aten.replication_pad2d.default),
    *(aten.upsample_bilinear2d.default, aten.upsample_nearest2d.default),
    *(aten.upsample_bicubic2d.default, aten.upsample_trilinear3d.default),
    *(aten.upsample_nearest1d.default, aten.upsample_nearest3d.default),
    *(aten.upsample_linear1d.default, aten.pixel_shuffle.default, aten.pixel_unshuffle.default),
    *(aten.grid_sampler_2d.default, aten.silu_backward.default, aten.gelu_backward.default),
    *(aten.sigmoid_backward.default, aten.tanh_backward.default),
    *(linscope.relu_frozen.default, linscope.max_pool2d_frozen.default),
}

AFFINE: dict[Any, Affine] = {
    aten.convolution.default: Affine(_with(bias=None), _convolution_offset),
    **dict.fromkeys(_NORMS, Affine(_batch_norm, _channel_offset)),
    **dict.fromkeys(
        [
            *(aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar),
            *(aten.rsub.Tensor, aten.rsub.Scalar),
        ],
        Affine(_sum, _sum_offset),
    ),
    aten.addmm.default: _product_sum(aten.mm.default),
    aten.constant_pad_nd.default: Affine(_with(value=0)),
    aten.cat.default: Affine(_without_constants("tensors")),
    aten.stack.default: Affine(_without_constants("tensors")),
    aten.where.self: Affine(_without_constants("self", "other")),
    aten.masked_fill.Scalar: Affine(_without_constants("self", "value")),
    aten.masked_fill.Tensor: Affine(_without_constants("self", "value")),
    aten.masked_scatter.default: Affine(_without_constants("self", "source")),
    aten.lerp.Scalar: Affine(_without_constants("self", "end")),
    aten.lerp.Tensor: Affine(_without_constants("self", "end")),
    **dict.fromkeys(
        [
            *(aten.slice_scatter.default, aten.select_scatter.default),
            aten.diagonal_scatter.default,
        ],
        Affine(_without_constants("self", "src")),
    ),
    aten.index_put.default: Affine(_without_constants("self", "values")),
    aten.scatter.src: Affine(_without_constants("self", "src")),
    aten.scatter.value: Affine(_without_constants("self", "value")),
    aten.scatter_add.default: Affine(_without_constants("self", "src")),
    aten.index_add.default: Affine(_without_constants("self", "source")),
    aten.index_copy.default: Affine(_without_constants("self", "source")),
    aten.index_fill.int_Scalar: Affine(_without_constants("self", "value")),
    aten.index_fill.int_Tensor: Affine(_without_constants("self", "value")),
    **dict.fromkeys(
        [
            *(aten.baddbmm.default, aten.addbmm.default, aten.addmv.default, aten.addr.default),
            *(aten.addcmul.default, aten.addcdiv.default),
        ],
        _product_sum(),
    ),
    linscope.clamp_frozen.default: Affine(_with(min=0.0, max=0.0)),
    linscope.gate_frozen.default: Affine(_with(shift=0.0), _gate_offset),
    linscope.instance_norm_frozen.default: Affine(_with(mean=None, shift=None), _channel_offset),
}
