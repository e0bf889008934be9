"""Decisions that are one of several, and how far each stays as it is while its arguments move.

Along z0 + t dz, from t = 0 on, a decision changes where a gap, such as the distance of a ReLU's
input from 0, is used up. Each kind of decision has a class that knows its gaps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor


class Moving(NamedTuple):
    """z0 + t dz, an argument of a decision: its value at t = 0 and its slope, of one shape."""

    value: Tensor
    slope: Tensor

    def through(self, linear: Callable[[Tensor], Tensor]) -> Moving:
        return Moving(linear(self.value), linear(self.slope))

    def minus(self, other: Moving | float) -> Moving:
        if isinstance(other, Moving):
            return Moving(self.value - other.value, self.slope - other.slope)
        return Moving(self.value - other, self.slope)

    def where(self, positive: Tensor) -> Moving:
        """Itself where that is true, its negative elsewhere."""
        return self.through(lambda v: torch.where(positive, v, -v))


def used_up(gap: Moving) -> Tensor:
    """The t >= 0 from which a gap of 0 or more is below 0, inf where it never is.

    What rounding has put below 0 is 0; NaN and infinity stay what they are.
    """
    falls = gap.slope < 0
    t = torch.where(falls, gap.value.clamp(min=0) / -gap.slope, math.inf)
    return t.nan_to_num(nan=math.inf, posinf=math.inf)


class Choice:
    """A decision that is one of several. `kind` is what it is called."""

    kind: ClassVar[str] = "value"

    def until(self, chosen: Any, *args: Moving) -> Tensor | None:
        """The t >= 0 from which each entry of the decision `chosen` is another one along its
        arguments, inf where it stays; None where nobody knows.
        """
        return None


class Discrete(Choice):
    """A function whose result is such a decision."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class Places(Discrete):
    """A function whose whole numbers, from 0 to `size` - 1, say where something is taken from.

    freeze(Places(lambda x: x.argmax(1, keepdim=True), x.shape[1]), x)
    """

    kind = "winner"

    def __init__(self, function: Callable[..., Any], size: int):
        super().__init__(function)
        self.size = size


# ---- Entries that are decided on alone ----


class Side(Choice):
    """Whether its argument is above 0."""

    kind = "side"

    def until(self, chosen, z):
        return used_up(z.where(chosen))


class Piece(Choice):
    """0 up to `low`, 1 above it, 2 from `high` on."""

    kind = "piece"

    def __init__(self, low: float, high: float):
        self.low, self.high = low, max(low, high)

    def until(self, chosen, z):
        low, high = z.minus(self.low).where(chosen > 0), z.minus(self.high).where(chosen > 1)
        return torch.minimum(used_up(low), used_up(high))


class Compared(Discrete):
    """Which of two arguments is the greater one: the first, or with `less` the second, where the
    function is true. One argument is compared with 0.
    """

    kind = "side"

    def __init__(self, function: Callable[..., Tensor], less: bool = False):
        super().__init__(function)
        self.less = less

    def until(self, chosen, a, b=None):
        lead = a if b is None else a.minus(b)
        return used_up(lead.where(chosen != self.less))


class Beyond(Discrete):
    """Whether its argument's size is above a bound, or NaN."""

    kind = "side"

    def __init__(self, bound: float):
        super().__init__(lambda x: ~(x.abs() <= bound))
        self.bound = bound

    def until(self, chosen, x):
        size = x.where(x.value >= 0)
        leaves = used_up(size.minus(self.bound).where(chosen))
        if self.bound < 0:  # nothing is within
            return torch.full_like(leaves, math.inf)
        other = used_up(size.through(torch.neg).minus(self.bound).where(chosen))
        return torch.where(chosen, leaves, torch.minimum(leaves, other))


class Standing(Discrete):
    """What all finite numbers decide alike, such as whether they are finite."""

    kind = "side"

    def until(self, chosen, *args):
        first = chosen[0] if isinstance(chosen, tuple) else chosen
        return torch.full(first.shape, math.inf, device=first.device)


# ---- Entries that are chosen among others ----


class Winner(Places):
    """The entry along a dimension that is the largest (`rank` 1), the smallest (-1), or has as many
    others above it as a median has (0).
    """

    kind = "winner"

    def __init__(self, function: Callable[..., Any], size: int, dim: int, rank: int):
        super().__init__(function, size)
        self.dim, self.rank = dim, rank

    def until(self, chosen, z):
        kept = chosen.dim() == z.value.dim()
        at = chosen if kept else chosen.unsqueeze(self.dim)
        lead = z.through(lambda v: v.gather(self.dim, at)).minus(z)
        gap = lead.through(lambda v: v * self.rank) if self.rank else _apart(lead)
        t = used_up(gap).amin(self.dim, keepdim=True)
        return t if kept else t.squeeze(self.dim)


def _apart(lead: Moving) -> Moving:
    """How far others are from the chosen one, above or below it. Of equals nobody knows who stands
    for what: whoever moves changes it.
    """
    gap = lead.where(lead.value > 0)
    return Moving(gap.value, torch.where(gap.value == 0, -gap.slope.abs(), gap.slope))


class Shares(Discrete):
    """The shares of those entries of a whole tensor that are equal to one value of it, such as the
    largest; 0 of the others.
    """

    kind = "winner"

    def until(self, chosen, z):
        flat, won = z.through(torch.flatten), chosen.flatten() > 0
        at = won.int().argmax()
        t = used_up(_apart(flat.through(lambda v: v[at]).minus(flat))).amin()
        return torch.where(won, t, math.inf).reshape(chosen.shape)


class Order(Places):
    """The entries along a dimension in their order; of the first ones alone, no other may pass the
    last of them.
    """

    kind = "order"

    def __init__(self, function: Callable[..., Any], size: int, dim: int, descending: bool):
        super().__init__(function, size)
        self.dim, self.descending = dim, descending

    def until(self, chosen, z):
        at = chosen.movedim(self.dim, -1)
        z = z.through(lambda v: (-v if self.descending else v).movedim(self.dim, -1))
        kept = z.through(lambda v: v.gather(-1, at))
        t = torch.full_like(kept.value, math.inf)
        if not t.numel():
            return t.movedim(-1, self.dim)
        steps = used_up(kept.through(lambda v: v.diff(dim=-1)))
        t[..., :-1] = steps
        t[..., 1:] = torch.minimum(t[..., 1:], steps)
        if at.shape[-1] < z.value.shape[-1]:
            rest = used_up(z.minus(kept.through(lambda v: v[..., -1:]))).scatter(-1, at, math.inf)
            t[..., -1] = torch.minimum(t[..., -1], rest.amin(-1))
        return t.movedim(-1, self.dim)


class Window(Choice):
    """The largest entry of each window over the last dimensions, as its flat place in these.

    `taps(axis, size, outputs)` are the places along a dimension that each of its windows looks at,
    (outputs, taps); those outside of 0 ... size - 1 are none.
    """

    kind = "winner"

    def __init__(self, taps: Callable[[int, int, int], Tensor], dims: int):
        self.taps, self.dims = taps, dims

    def until(self, chosen, z):
        sizes, outputs = z.value.shape[-self.dims :], chosen.shape[-self.dims :]
        flat, at = z.through(lambda v: v.flatten(-self.dims)), chosen.flatten(-self.dims)
        won = flat.through(lambda v: v.gather(-1, at))
        t = torch.full_like(won.value, math.inf)
        tables = [
            self.taps(axis, *both).to(at.device).unbind(1)
            for axis, both in enumerate(zip(sizes, outputs, strict=True))
        ]
        for columns in product(*tables):
            place, there = _places(columns, sizes)
            other = used_up(won.minus(flat.through(lambda v, place=place: v[..., place])))
            t = torch.minimum(t, other.masked_fill(~there, math.inf))
        return t.reshape(chosen.shape)


class Pooled(Window, Places):
    """The places that a pool takes its entries from, which it gives itself."""

    def __init__(self, function: Callable[..., Any], size: int, window: Window):
        Places.__init__(self, function, size)
        Window.__init__(self, window.taps, window.dims)


def _places(columns: Sequence[Tensor], sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Flat places of one tap of every window, and whether it is there."""
    place = torch.zeros((), dtype=torch.long, device=columns[0].device)
    there = torch.ones((), dtype=torch.bool, device=columns[0].device)
    for column, size in zip(columns, sizes, strict=True):
        inside = (column >= 0) & (column < size)
        place = place[..., None] * size + column.clamp(0, size - 1)
        there = there[..., None] & inside
    return place.flatten(), there.flatten()


def strided(
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Window:
    """The windows of a pool, of one number per dimension."""

    def taps(axis: int, size: int, outputs: int) -> Tensor:
        start = torch.arange(outputs)[:, None] * stride[axis] - padding[axis]
        return start + torch.arange(kernel[axis]) * dilation[axis]

    return Window(taps, len(kernel))


def _adaptive(axis: int, size: int, outputs: int) -> Tensor:
    steps = torch.arange(outputs)
    start, end = steps * size // outputs, -(-(steps + 1) * size // outputs)
    places = start[:, None] + torch.arange(int((end - start).max()))
    return places.where(places < end[:, None], -1)


def adaptive(dims: int) -> Window:
    """The windows of an adaptive pool."""
    return Window(_adaptive, dims)
