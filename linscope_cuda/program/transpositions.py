"""How the common linear functions are transposed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from .linear_part import IsLive
from .step import Step, Value
from .views import ORDERS, RESHAPES
from .writer import Writer, kind

aten = torch.ops.aten
linscope = torch.ops.linscope

# (writer, step, u, live) -> pairs of an argument's value and what of u comes back to it. The step's
# constants have the writer's names already; the arguments that are live, those of the program.
Rule = Callable[[Writer, Step, Value, IsLive], Iterator[tuple[Value, Value]]]


def _to(writer: Writer, u: Value, like: Value) -> Value:
    """u summed where `like` was broadcast, in its shape and dtype."""
    if u.shape != like.shape:
        ahead = len(u.shape) - len(like.shape)
        dims = [
            *range(ahead),
            *(i + ahead for i, n in enumerate(like.shape) if n == 1 and u.shape[i + ahead] != 1),
        ]
        if dims:
            shape = [1 if i in dims else n for i, n in enumerate(u.shape)]
            u = writer.emit(aten.sum.dim_IntList, u, dims, True, like=(shape, u.dtype))
        if u.shape != like.shape:
            u = writer.emit(aten.reshape.default, u, list(like.shape), like=(like.shape, u.dtype))
    return writer.cast(u, like.dtype)


def _same(writer: Writer, step: Step, u: Value, live: IsLive):
    """A function that is its own transpose."""
    x, *rest = step.args
    yield x, writer.emit(step.function, u, *rest, like=kind(x), **step.kwargs)


def _product(writer: Writer, step: Step, u: Value, live: IsLive):
    at = 0 if live(step.args[0]) else 1
    x, factor = step.args[at], step.args[1 - at]
    yield x, _to(writer, writer.emit(step.function, u, factor, like=kind(u)), x)


def _quotient(writer: Writer, step: Step, u: Value, live: IsLive):
    yield (
        step.args[0],
        _to(writer, writer.emit(step.function, u, step.args[1], like=kind(u)), step.args[0]),
    )


def _sum(writer: Writer, step: Step, u: Value, live: IsLive):
    alpha = step.args[2] if len(step.args) > 2 else step.kwargs.get("alpha", 1)
    name = step.function._schema.name.split("::")[1]
    for x, sign in zip(step.args, {"add": (1, alpha), "sub": (1, -alpha)}[name], strict=False):
        if not live(x):
            continue
        yield x, writer.times(_to(writer, u, x), sign)


def _convolution(writer: Writer, step: Step, u: Value, live: IsLive):
    x, weight, _, *window, transposed, _, groups = step.args
    kernel, size = weight.shape[2:], u.shape[2:]
    # torch takes one number for all dimensions, too.
    stride, padding, dilation = (w if len(w) > 1 else list(w) * len(kernel) for w in window)
    extra = [0] * len(kernel)
    if not transposed:  # what the strides left over at the end
        extra = [
            n - ((m - 1) * s - 2 * p + d * (k - 1) + 1)
            for n, m, s, p, d, k in zip(
                x.shape[2:], size, stride, padding, dilation, kernel, strict=True
            )
        ]
    args = (weight, None, stride, padding, dilation, not transposed, extra, groups)
    if not transposed:
        yield x, writer.emit(aten.convolution.default, u, *args, like=kind(x))
        return
    steps = zip(size, padding, dilation, kernel, stride, strict=True)
    made = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in steps]
    shape = [*x.shape[:2], *made]
    y = writer.emit(aten.convolution.default, u, *args, like=(shape, u.dtype))
    for dim, (extent, wanted) in enumerate(zip(made, x.shape[2:], strict=True), 2):
        if (
            extent != wanted
        ):  # windows beyond the last one, where there was more padding than stride
            shape[dim] = wanted
            y = writer.emit(aten.slice.Tensor, y, dim, 0, wanted, 1, like=(shape, u.dtype))
    yield x, y


def _matrix_product(writer: Writer, step: Step, u: Value, live: IsLive):
    a, b = step.args
    if live(a):
        yield a, writer.emit(step.function, u, _matrix(writer, b), like=kind(a))
    if live(b):
        yield b, writer.emit(step.function, _matrix(writer, a), u, like=kind(b))


def _matrix(writer: Writer, m: Any) -> Any:
    """A constant matrix, or matrices, transposed."""
    if isinstance(m, Value):
        shape = (*m.shape[:-2], m.shape[-1], m.shape[-2])
        return writer.emit(aten.transpose.int, m, -2, -1, like=(shape, m.dtype))
    return m.transpose(-2, -1)


def _shape(writer: Writer, step: Step, u: Value, live: IsLive):
    x = step.args[0]
    yield x, writer.emit(aten.reshape.default, u, list(x.shape), like=kind(x))


def _order(writer: Writer, step: Step, u: Value, live: IsLive):
    x, *rest = step.args
    back = ORDERS[step.function](len(x.shape), *rest)
    yield x, writer.emit(aten.permute.default, u, back, like=kind(x))


def _expand(writer: Writer, step: Step, u: Value, live: IsLive):
    yield step.args[0], _to(writer, u, step.args[0])


def _copy(writer: Writer, step: Step, u: Value, live: IsLive):
    yield step.args[0], writer.cast(u, step.args[0].dtype)


def _cat(writer: Writer, step: Step, u: Value, live: IsLive):
    parts, *dim = step.args
    at = (dim[0] if dim else step.kwargs.get("dim", 0)) % len(u.shape)
    start = 0
    for part in parts:
        if tuple(part.shape) == (0,):
            continue
        end = start + part.shape[at]
        if live(part):
            yield part, writer.emit(aten.slice.Tensor, u, at, start, end, like=kind(part))
        start = end


def _stack(writer: Writer, step: Step, u: Value, live: IsLive):
    parts, *dim = step.args
    at = (dim[0] if dim else step.kwargs.get("dim", 0)) % len(u.shape)
    for i, part in enumerate(parts):
        if live(part):
            yield part, writer.emit(aten.select.int, u, at, i, like=kind(part))


def _slice(writer: Writer, step: Step, u: Value, live: IsLive):
    x, *rest = step.args
    names = ("dim", "start", "end", "step")
    given = {
        "dim": 0,
        "start": None,
        "end": None,
        "step": 1,
        **step.kwargs,
        **dict(zip(names, rest, strict=False)),
    }
    size = x.shape[given["dim"]]
    start, end, stride = slice(given["start"], given["end"], given["step"]).indices(size)
    args = (list(x.shape), given["dim"], start, end, stride)
    yield x, writer.emit(aten.slice_backward.default, u, *args, like=kind(x))


def _slice_backward(writer: Writer, step: Step, u: Value, live: IsLive):
    x, _, *where = step.args
    yield x, writer.emit(aten.slice.Tensor, u, *where, like=kind(x))


def _select(writer: Writer, step: Step, u: Value, live: IsLive):
    x, dim, index = step.args
    yield x, writer.emit(aten.select_backward.default, u, list(x.shape), dim, index, like=kind(x))


def _select_backward(writer: Writer, step: Step, u: Value, live: IsLive):
    x, _, *where = step.args
    yield x, writer.emit(aten.select.int, u, *where, like=kind(x))


def _total(writer: Writer, step: Step, u: Value, live: IsLive):
    """sum and mean, of all or of some dimensions."""
    x = step.args[0]
    given = step.args[1] if len(step.args) > 1 and x.shape else None
    dims = [d % len(x.shape) for d in given or range(len(x.shape))]
    kept = [1 if i in dims else n for i, n in enumerate(x.shape)]
    u = writer.cast(u, x.dtype)
    if u.shape != tuple(kept):
        u = writer.emit(aten.reshape.default, u, kept, like=(kept, u.dtype))
    y = writer.emit(aten.expand.default, u, list(x.shape), like=kind(x))
    if step.function in (aten.mean.default, aten.mean.dim):
        count = torch.Size([x.shape[d] for d in dims]).numel()
        y = writer.emit(aten.div.Scalar, y, count, like=kind(x))
    yield x, y


def _pool(writer: Writer, step: Step, u: Value, live: IsLive):
    x, winners, *window = step.args
    args = (winners, list(x.shape[2:]), *window)
    yield x, writer.emit(linscope.max_pool2d_frozen_transpose.default, u, *args, like=kind(x))


def _pool_transpose(writer: Writer, step: Step, u: Value, live: IsLive):
    x, winners, _, *window = step.args
    yield x, writer.emit(linscope.max_pool2d_frozen.default, u, winners, *window, like=kind(x))


def _shuffle(writer: Writer, step: Step, u: Value, live: IsLive):
    x, factor = step.args
    back = _SHUFFLES[step.function]
    yield x, writer.emit(back, u, factor, like=kind(x))


_SHUFFLES = {
    aten.pixel_shuffle.default: aten.pixel_unshuffle.default,
    aten.pixel_unshuffle.default: aten.pixel_shuffle.default,
}

# A slope, kept or computed anew, times what comes first: torch has no derivative of most of these.
_SLOPES = [
    getattr(aten, f"{name}_backward").default
    for name in (
        *("silu", "gelu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "elu", "leaky_relu"),
        *("threshold", "hardtanh", "softplus", "mish", "log_sigmoid", "softshrink", "hardshrink"),
    )
    if hasattr(aten, f"{name}_backward")
    and "default" in getattr(aten, f"{name}_backward").overloads()
]

RULES: dict[Any, Rule] = {
    aten.convolution.default: _convolution,
    **dict.fromkeys([aten.mul.Tensor, aten.mul.Scalar], _product),
    **dict.fromkeys([aten.div.Tensor, aten.div.Scalar], _quotient),
    **dict.fromkeys([aten.add.Tensor, aten.sub.Tensor], _sum),
    **dict.fromkeys([aten.mm.default, aten.bmm.default], _matrix_product),
    **dict.fromkeys(RESHAPES, _shape),
    **dict.fromkeys(ORDERS, _order),
    aten.expand.default: _expand,
    **dict.fromkeys([aten.clone.default, aten._to_copy.default, aten.alias.default], _copy),
    aten.cat.default: _cat,
    aten.stack.default: _stack,
    aten.slice.Tensor: _slice,
    aten.slice_backward.default: _slice_backward,
    aten.select.int: _select,
    aten.select_backward.default: _select_backward,
    **dict.fromkeys(
        [aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim], _total
    ),
    **dict.fromkeys(
        [
            *(aten.neg.default, linscope.relu_frozen.default, linscope.clamp_frozen.default),
            *(linscope.gate_frozen.default, linscope.instance_norm_frozen.default),
        ],
        _same,
    ),
    **dict.fromkeys(_SHUFFLES, _shuffle),
    **dict.fromkeys(_SLOPES, _same),
    linscope.max_pool2d_frozen.default: _pool,
    linscope.max_pool2d_frozen_transpose.default: _pool_transpose,
}
