"""Linear functions along one dimension: padding, resizing, averages, slices, and their transposes.

Many functions of pictures do one such thing along each dimension. What they do is read from the
function itself: where it only moves entries, from its answer to their numbers, else from those to
unit vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..step import Step
from .box import Interval

aten = torch.ops.aten

_MANY = 8  # from so many taps on, a product of matrices
_COLUMNS = 2
_APART = 64
_LONGEST = 2**26  # entries of a matrix that is looked at


class TooLong(ValueError):
    """A dimension of which no matrix is made."""


class Axis:
    """y[at] = sum of weight * x[place], for (at, place, weight) of three arrays, in the order of
    `at`; both ends of some size.
    """

    def __init__(
        self, at: np.ndarray, place: np.ndarray, weight: np.ndarray, outputs: int, inputs: int
    ) -> None:
        order = np.argsort(at, kind="stable")
        self.at, self.place, self.weight = at[order], place[order], weight[order]
        self.outputs, self.inputs = outputs, inputs

    @property
    def T(self) -> Axis:
        return Axis(self.place, self.at, self.weight, self.inputs, self.outputs)

    @property
    def is_identity(self) -> bool:
        numbers = np.arange(self.inputs)
        same = self.outputs == self.inputs == len(self.at)
        return same and bool((self.at == numbers).all() and (self.place == numbers).all())

    @cached_property
    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The first and the last output that each input reaches; none: beyond the others."""
        first, last = np.full(self.inputs, self.outputs), np.full(self.inputs, -1)
        np.minimum.at(first, self.place, self.at)
        np.maximum.at(last, self.place, self.at)
        return first, last

    @cached_property
    def _starts(self) -> np.ndarray:
        """Where the taps of each output begin among all, and at last their number."""
        return np.searchsorted(self.at, np.arange(self.outputs + 1))

    def reach(self, start: int, end: int) -> Interval | None:
        """The outputs that inputs start ... end - 1 reach."""
        firsts, lasts = self._ends
        first, last = int(firsts[start:end].min()), int(lasts[start:end].max())
        return (first, last + 1) if first <= last else None

    def between(self, given: Interval, made: Interval) -> tuple[Hashable, Callable[..., Tensor]]:
        """What makes the outputs `made` of the inputs `given`, the others zero: a key, equal for
        equal functions, and the function (x, dim).
        """
        some = slice(self._starts[made[0]], self._starts[made[1]])
        at, place = self.at[some] - made[0], self.place[some] - given[0]
        size, count = given[1] - given[0], made[1] - made[0]
        inside = (place >= 0) & (place < size)
        at, place, weight = at[inside], place[inside], self.weight[some][inside]
        row = len(at) == count and (at == np.arange(count)).all() and (weight == 1).all()
        if row and (np.diff(place) == 1).all():
            start = int(place[0])
            if (start, count) == (0, size):
                return None, lambda x, dim: x
            return (start, count), lambda x, dim: x.narrow(dim, start, count)
        key = (size, count, at.tobytes(), place.tobytes(), weight.tobytes())
        return key, lambda x, dim: _summed(x, dim, count, at, place, weight)


def _summed(
    x: Tensor, dim: int, count: int, at: np.ndarray, place: np.ndarray, weight: np.ndarray
) -> Tensor:
    taps = np.arange(len(at)) - np.searchsorted(at, at)  # the number of each among its output's
    most = int(taps.max(initial=0)) + 1
    if most > _MANY:
        matrix = np.zeros((count, x.shape[dim]))
        np.add.at(matrix, (at, place), weight)
        factor = torch.as_tensor(matrix, dtype=x.dtype, device=x.device)
        return (x.movedim(dim, -1) @ factor.T).movedim(-1, dim)
    places, weights = np.zeros((most, count), dtype=np.int64), np.zeros((most, count))
    places[taps, at], weights[taps, at] = place, weight
    where = torch.as_tensor(places, device=x.device)
    factor = torch.as_tensor(weights, dtype=x.dtype, device=x.device)
    shape = [-1 if d == dim else 1 for d in range(x.dim())]
    y = x.index_select(dim, where[0]) * factor[0].view(shape)
    for t in range(1, most):
        y = y + x.index_select(dim, where[t]) * factor[t].view(shape)
    return y


Axes = dict[int, Axis]  # by dimension; those that are not there stay as they are
Shape = tuple[int, ...]


def _moving(f: Callable[[Tensor], Tensor], size: int) -> Axis:
    """Of f, from (1, size) to (1, outputs), that moves entries, or makes zeros."""
    numbers = torch.arange(1, size + 1, dtype=torch.float64, device="cpu")[None]
    found = f(numbers)[0].numpy().astype(np.int64)
    at = found.nonzero()[0]
    return Axis(at, found[at] - 1, np.ones(len(at)), len(found), size)


def _weighing(f: Callable[[Tensor], Tensor], size: int) -> Axis:
    """Of any f, from (rows, size) to (rows, outputs), by what it makes of unit vectors.

    TooLong for a dimension of which these would take too much.
    """
    # Those whose answers lie apart go together; where they do not, each by itself.
    for apart in (_APART, size):
        found = None if apart * size > _LONGEST else _by_units(f, size, apart)
        if found is not None:
            return found
    raise TooLong(f"a dimension of {size} is too long")


def _by_units(f: Callable[[Tensor], Tensor], size: int, apart: int) -> Axis | None:
    """By unit vectors so many places apart, together; None if an output is reached by two."""
    numbers = torch.arange(1, size + 1, dtype=torch.float64, device="cpu")
    units = torch.zeros(min(apart, size), size, dtype=torch.float64, device="cpu")
    units[torch.arange(size, device="cpu") % apart, torch.arange(size, device="cpu")] = 1
    # Whose they are is told by the same units, as large as their number and as its square.
    weight, first, second = (f(units * numbers**k).T.numpy() for k in (0, 1, 2))
    at, row = first.nonzero()
    weights = weight[at, row]
    if (weights == 0).any():
        return None
    place = first[at, row] / weights
    if not np.allclose(second[at, row] / weights, place**2, rtol=1e-9):
        return None
    return Axis(at, np.rint(place).astype(np.int64) - 1, weights, len(weight), size)


def _each(value: Any, count: int) -> list[Any]:
    """A parameter of each spatial dimension; one stands for all."""
    value = list(value) if isinstance(value, tuple | list) else [value]
    return value if len(value) == count else value[:1] * count


def _padded(mode: str) -> Callable[..., Axes]:
    def axes(step: Step, shape: Shape) -> Axes:
        pad = step.args[2] if step.function in _FORWARD else step.args[1]
        found: Axes = {}
        for i in range(len(pad) // 2):
            dim, by = len(shape) - 1 - i, (pad[2 * i], pad[2 * i + 1])
            f = (
                (lambda t, by=by: F.pad(t, by))
                if mode == "constant"
                else (lambda t, by=by: F.pad(t[None], by, mode=mode)[0])
            )
            found[dim] = _moving(f, shape[dim])
        return found

    return axes


def _one_by_one(function: Any, t: Tensor, count: int, *args: Any) -> Tensor:
    """A function of pictures, of (channels, size) as pictures of two equal columns: of one column
    antialiased resizing makes something else.
    """
    t = t.view(1, *t.shape, *[1] * (count - 1)).expand(1, *t.shape, *[_COLUMNS] * (count - 1))
    y = function(t.contiguous(), *args)[0]
    return y if count == 1 else y.flatten(2)[:, :, 0]


def _resized(step: Step, shape: Shape) -> Axes:
    """(x, output_size, [align_corners], scales...); of a transpose (u, output_size, input_size,
    ...).
    """
    forward = _FORWARD.get(step.function, step.function)
    made = _moving if "nearest" in forward.name() else _weighing
    count = len(shape) - 2
    names = [a.name for a in step.function._schema.arguments]
    given = {**dict(zip(names, step.args, strict=False)), **step.kwargs}
    corners = [given["align_corners"]] if "align_corners" in given else []
    scales = [n for n in names if n.startswith("scale")]
    found = {}
    for i, dim in enumerate(range(2, len(shape))):
        size = [given["output_size"][i], *[_COLUMNS] * (count - 1)]
        scale = [given.get(scales[i]) if scales else None, *[None] * (count - 1)]
        args = (size, *corners, *scale)
        found[dim] = made(lambda t, args=args: _one_by_one(forward, t, count, *args), shape[dim])
    return found


def _averaged(step: Step, shape: Shape) -> Axes:
    forward = _FORWARD.get(step.function, step.function)
    names = [a.name for a in step.function._schema.arguments]
    given = {**dict(zip(names, step.args, strict=False)), **step.kwargs}
    count = len(shape) - 2
    kernel = _each(given["kernel_size"], count)
    stride = _each(given.get("stride") or kernel, count)
    padding = _each(given.get("padding", 0), count)
    rest = given.get("ceil_mode", False), given.get("count_include_pad", True)
    divisor = given.get("divisor_override")
    found = {}
    for i, dim in enumerate(range(2, len(shape))):
        ones = [1] * (count - 1)
        # The divisor is that of the whole window: the first dimension has it.
        by = divisor if divisor is None or i == 0 else 1
        args = ([kernel[i], *ones], [stride[i], *ones], [padding[i], *[0] * (count - 1)])
        found[dim] = _weighing(
            lambda t, args=args, by=by: _one_by_one(forward, t, count, *args, *rest, by), shape[dim]
        )
    return found


def _adaptive(step: Step, shape: Shape) -> Axes:
    forward = _FORWARD.get(step.function, step.function)
    count = len(shape) - 2
    made = step.args[0].shape if step.function in _FORWARD else step.output.shape
    return {
        dim: _weighing(
            lambda t, n=made[dim]: _one_by_one(forward, t, count, [n, *[_COLUMNS] * (count - 1)]),
            shape[dim],
        )
        for dim in range(2, len(shape))
    }


def _rolled(step: Step, shape: Shape) -> Axes:
    shifts, dims = ([v] if isinstance(v, int) else v for v in step.args[1:3])
    by: dict[int, int] = {}
    for shift, dim in zip(shifts, dims, strict=True):
        by[dim % len(shape)] = by.get(dim % len(shape), 0) + shift
    return {d: _moving(lambda t, by=by: t.roll(by, 1), shape[d]) for d, by in by.items()}


def _flipped(step: Step, shape: Shape) -> Axes:
    return {
        d % len(shape): _moving(lambda t: t.flip(1), shape[d % len(shape)]) for d in step.args[1]
    }


def _sliced(step: Step, shape: Shape) -> Axes:
    names = ("dim", "start", "end", "step")
    given = step.args[2:] if step.function in _FORWARD else step.args[1:]
    at = {"dim": 0, "start": None, "end": None, "step": 1, **step.kwargs}
    at |= dict(zip(names, given, strict=False))
    dim = at["dim"] % len(shape)
    which = slice(at["start"], at["end"], at["step"])
    return {dim: _moving(lambda t: t[:, which], shape[dim])}


def _channels(step: Step, shape: Shape) -> Axes:
    groups = step.args[1]
    shuffle = aten.channel_shuffle.default
    return {1: _moving(lambda t: shuffle(t[..., None], groups)[..., 0], shape[1])}


def _taken(step: Step, shape: Shape) -> Axes:
    dim = step.args[1] % len(shape)
    which = step.args[2].cpu()
    return {dim: _moving(lambda t: t.index_select(1, which), shape[dim])}


def _known(**named: Callable[..., Axes]) -> dict[Any, Callable[..., Axes]]:
    """Those of some functions by their names, of those that this torch has."""
    found = {}
    for name, axes in named.items():
        packet = getattr(aten, name, None)
        if packet is not None and "default" in packet.overloads():
            found[packet.default] = axes
    return found


_RESIZING = [
    *(f"upsample_{kind}" for kind in ("nearest1d", "nearest2d", "nearest3d", "linear1d")),
    *(f"upsample_{kind}" for kind in ("bilinear2d", "trilinear3d", "bicubic2d")),
    *(f"_upsample_{kind}" for kind in ("nearest_exact1d", "nearest_exact2d", "nearest_exact3d")),
    *(f"_upsample_{kind}" for kind in ("bilinear2d_aa", "bicubic2d_aa")),
]
_NAMED: dict[str, Callable[..., Axes]] = {
    **{f"reflection_pad{d}d": _padded("reflect") for d in (1, 2, 3)},
    **{f"replication_pad{d}d": _padded("replicate") for d in (1, 2, 3)},
    **dict.fromkeys(_RESIZING, _resized),
    **dict.fromkeys(["avg_pool2d", "avg_pool3d"], _averaged),
    **dict.fromkeys(["_adaptive_avg_pool2d", "_adaptive_avg_pool3d"], _adaptive),
}
# Transposes, and what they are the transposes of.
_FORWARD: dict[Any, Any] = {aten.slice_backward.default: aten.slice.Tensor}
for _name in _NAMED:
    _back = getattr(aten, f"{_name}_backward", None)
    if hasattr(aten, _name) and _back is not None and "default" in _back.overloads():
        _FORWARD[_back.default] = getattr(aten, _name).default

AXES: dict[Any, Callable[..., Axes]] = {
    **_known(**_NAMED, **{f"{name}_backward": axes for name, axes in _NAMED.items()}),
    aten.constant_pad_nd.default: _padded("constant"),
    **_known(
        channel_shuffle=_channels,
        roll=_rolled,
        flip=_flipped,
        slice_backward=_sliced,
        index_select=_taken,
    ),
    aten.slice.Tensor: _sliced,
}


def axes_of(step: Step) -> Axes:
    """What a function of AXES does along each dimension."""
    back = step.function in _FORWARD
    axes = AXES[step.function](step, (step.output if back else step.args[0]).shape)
    return {dim: a.T if back else a for dim, a in axes.items() if not a.is_identity}
