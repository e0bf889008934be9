"""Linear functions along one dimension: padding, resizing, averages, slices, and their transposes.

Many functions of pictures do one such thing along each dimension. What they do is read from the
function itself: its answer to the unit vectors of one dimension, where the others have one entry.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
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


class Axis:
    """y[o] = sum over taps t of weight[t, o] x[place[t, o]]."""

    def __init__(self, matrix: np.ndarray) -> None:
        """By its matrix, (outputs, inputs)."""
        outputs, inputs = matrix.shape
        at, places = matrix.nonzero()
        starts = np.searchsorted(at, np.arange(outputs))
        tap = np.arange(len(at)) - starts[at]
        taps = int(tap.max(initial=0)) + 1
        self.place = np.full((taps, outputs), -1)
        self.weight = np.zeros((taps, outputs))
        self.place[tap, at], self.weight[tap, at] = places, matrix[at, places]
        self.outputs = outputs
        # The first and the last output that each input reaches; none: beyond the others.
        self._first = np.full(inputs, outputs)
        self._last = np.full(inputs, -1)
        np.minimum.at(self._first, places, at)
        np.maximum.at(self._last, places, at)

    def reach(self, start: int, end: int) -> Interval | None:
        """The outputs that inputs start ... end - 1 reach."""
        first, last = int(self._first[start:end].min()), int(self._last[start:end].max())
        return (first, last + 1) if first <= last else None

    def between(self, given: Interval, made: Interval) -> tuple[Hashable, Callable[..., Tensor]]:
        """What makes the outputs `made` of the inputs `given`, the others zero: a key, equal for
        equal functions, and the function (x, dim).
        """
        place = self.place[:, made[0] : made[1]] - given[0]
        size = given[1] - given[0]
        inside = (place >= 0) & (place < size)
        weight = self.weight[:, made[0] : made[1]] * inside
        place = place * inside
        if len(place) == 1 and (weight == 1).all() and (np.diff(place[0]) == 1).all():
            start, count = int(place[0, 0]), place.shape[1]
            if (start, count) == (0, size):
                return None, lambda x, dim: x
            return (start, count), lambda x, dim: x.narrow(dim, start, count)
        key = (size, place.tobytes(), weight.tobytes())
        return key, lambda x, dim: _summed(x, dim, place, weight)


def _summed(x: Tensor, dim: int, place: np.ndarray, weight: np.ndarray) -> Tensor:
    where = torch.as_tensor(place, device=x.device)
    factor = torch.as_tensor(weight, dtype=x.dtype, device=x.device)
    if len(place) > _MANY:
        matrix = factor.new_zeros(place.shape[1], x.shape[dim])
        outputs = torch.arange(place.shape[1], device=x.device).expand_as(where)
        matrix.index_put_((outputs, where), factor, accumulate=True)
        return (x.movedim(dim, -1) @ matrix.T).movedim(-1, dim)
    shape = [-1 if d == dim else 1 for d in range(x.dim())]
    y = x.index_select(dim, where[0]) * factor[0].view(shape)
    for t in range(1, len(place)):
        y = y + x.index_select(dim, where[t]) * factor[t].view(shape)
    return y


Axes = dict[int, Axis]  # by dimension; those that are not there stay as they are
Matrices = dict[int, np.ndarray]
Shape = tuple[int, ...]


def _along(f: Callable[[Tensor], Tensor], size: int) -> np.ndarray:
    """The matrix of f, from (size, size) to (size, outputs), by what it makes of unit vectors."""
    return f(torch.eye(size, dtype=torch.float64, device="cpu")).T.numpy()


def _each(value: Any, count: int) -> list[Any]:
    """A parameter of each spatial dimension; one stands for all."""
    value = list(value) if isinstance(value, tuple | list) else [value]
    return value if len(value) == count else value[:1] * count


def _padded(mode: str) -> Callable[..., Matrices]:
    def matrices(step: Step, shape: Shape) -> Matrices:
        pad = step.args[2] if step.function in _FORWARD else step.args[1]
        found: Matrices = {}
        for i in range(len(pad) // 2):
            dim, by = len(shape) - 1 - i, (pad[2 * i], pad[2 * i + 1])
            f = (
                (lambda t, by=by: F.pad(t, by))
                if mode == "constant"
                else (lambda t, by=by: F.pad(t[None], by, mode=mode)[0])
            )
            found[dim] = _along(f, shape[dim])
        return found

    return matrices


def _one_by_one(function: Any, t: Tensor, count: int, *args: Any) -> Tensor:
    """A function of pictures, of (channels, size) as pictures of two equal columns: of one column
    antialiased resizing makes something else.
    """
    t = t.view(1, *t.shape, *[1] * (count - 1)).expand(1, *t.shape, *[_COLUMNS] * (count - 1))
    y = function(t.contiguous(), *args)[0]
    return y if count == 1 else y.flatten(2)[:, :, 0]


def _resized(step: Step, shape: Shape) -> Matrices:
    """(x, output_size, [align_corners], scales...); of a transpose (u, output_size, input_size,
    ...).
    """
    forward = _FORWARD.get(step.function, step.function)
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
        found[dim] = _along(lambda t, args=args: _one_by_one(forward, t, count, *args), shape[dim])
    return found


def _averaged(step: Step, shape: Shape) -> Matrices:
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
        found[dim] = _along(
            lambda t, args=args, by=by: _one_by_one(forward, t, count, *args, *rest, by), shape[dim]
        )
    return found


def _adaptive(step: Step, shape: Shape) -> Matrices:
    forward = _FORWARD.get(step.function, step.function)
    count = len(shape) - 2
    made = step.args[0].shape if step.function in _FORWARD else step.output.shape
    return {
        dim: _along(
            lambda t, n=made[dim]: _one_by_one(forward, t, count, [n, *[_COLUMNS] * (count - 1)]),
            shape[dim],
        )
        for dim in range(2, len(shape))
    }


def _rolled(step: Step, shape: Shape) -> Matrices:
    shifts, dims = step.args[1], step.args[2] if len(step.args) > 2 else []
    shifts = [shifts] if isinstance(shifts, int) else shifts
    found: Matrices = {}
    for by, dim in zip(shifts, [dims] if isinstance(dims, int) else dims, strict=True):
        dim %= len(shape)
        again = _along(lambda t, by=by: t.roll(by, 1), shape[dim])
        found[dim] = again @ found[dim] if dim in found else again
    return found


def _flipped(step: Step, shape: Shape) -> Matrices:
    return {
        d % len(shape): _along(lambda t: t.flip(1), shape[d % len(shape)]) for d in step.args[1]
    }


def _sliced(step: Step, shape: Shape) -> Matrices:
    names = ("dim", "start", "end", "step")
    given = step.args[2:] if step.function in _FORWARD else step.args[1:]
    at = {"dim": 0, "start": None, "end": None, "step": 1, **step.kwargs}
    at |= dict(zip(names, given, strict=False))
    dim = at["dim"] % len(shape)
    which = slice(at["start"], at["end"], at["step"])
    return {dim: _along(lambda t: t[:, which], shape[dim])}


def _channels(step: Step, shape: Shape) -> Matrices:
    groups = step.args[1]
    shuffle = aten.channel_shuffle.default
    return {1: _along(lambda t: shuffle(t[..., None], groups)[..., 0], shape[1])}


def _taken(step: Step, shape: Shape) -> Matrices:
    dim = step.args[1] % len(shape)
    which = step.args[2].cpu()
    return {dim: _along(lambda t: t.index_select(1, which), shape[dim])}


def _known(**named: Callable[..., Matrices]) -> dict[Any, Callable[..., Matrices]]:
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
_NAMED: dict[str, Callable[..., Matrices]] = {
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

MATRICES: dict[Any, Callable[..., Matrices]] = {
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
    """What a function of MATRICES does along each dimension."""
    back = step.function in _FORWARD
    matrices = MATRICES[step.function](step, (step.output if back else step.args[0]).shape)
    return {dim: Axis(m.T if back else m) for dim, m in matrices.items() if not _is_identity(m)}


def _is_identity(m: np.ndarray) -> bool:
    return m.shape[0] == m.shape[1] and bool((m == np.eye(len(m))).all())
