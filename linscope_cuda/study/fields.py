"""Receptive and projective fields: rows and columns of F as pictures, and how far they reach.

A pixel of the output and one of the input *correspond* where their centres lie at the same place of
the picture: the diagonal of F, whatever the network's scale. Distances are in pixels of the input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..display import Drawn, Tabular
from ..frozen.network import FrozenNetwork
from ..linalg.operator import MatrixFreeOperator
from ..program.local.box import Box

Pixel = tuple[int, int]
Channels = str | Sequence[int]

# Without `within`, what lies further than this part of the shorter side is away from the diagonal.
_NEAR = 1 / 8


@dataclass(frozen=True, eq=False, repr=False)
class Field(Tabular, Drawn):
    """The rows of F for a pixel of the output, or its columns for one of the input.

    `pixel` (row, column) was probed in its own space, and `centre` corresponds to it in the other
    one, where the P fields lie: `values` (P, C, H, W) in the operator's dtype, `energy` (P, H, W),
    their squares summed over channels, in float64. `radius` (P,) is the distance, in pixels of the
    input, in which `share` of the energy lies, and `away` (P,) the share of the energy further than
    `within`, which is that of the mass away from the diagonal. Both are nan for a field of zeros.
    `support` is the theoretical field: the rows (start, end) and columns outside of which the steps
    of the network let nothing through; None where the operator cannot tell.

    >>> field = ls.fields(op, (24, 24)).receptive
    >>> field.values.shape, field.radius, field.support
    """

    kind: str  # "receptive" or "projective"
    pixel: Pixel
    centre: tuple[float, float]
    values: Tensor
    energy: Tensor
    share: float
    radius: Tensor
    within: float
    away: Tensor
    support: tuple[tuple[int, int], tuple[int, int]] | None = None

    def __str__(self) -> str:
        lines = [f"{self.kind} field of pixel {self.pixel}, {tuple(self.values.shape)}"]
        for radius, away in zip(self.radius.tolist(), self.away.tolist(), strict=True):
            lines.append(
                f"  {self.share:.0%} of the energy within {radius:.4g} pixels of the input, "
                f"{100 * away:.3g} % further than {self.within:g}"
            )
        if self.support:
            rows, columns = (f"{start} ... {end - 1}" for start, end in self.support)
            lines.append(f"  theoretical field: rows {rows}, columns {columns}")
        return "\n".join(lines)

    def _columns(self) -> dict[str, list[Any]]:
        return {
            "kind": [self.kind] * len(self.radius),
            "pixel": [self.pixel] * len(self.radius),
            "energy": self.energy.flatten(1).sum(1).tolist(),
            "radius": self.radius.tolist(),
            "away": self.away.tolist(),
        }


@dataclass(frozen=True, eq=False, repr=False)
class Fields(Tabular, Drawn):
    """What an output pixel uses, `receptive`, and what an input pixel affects, `projective`.

    >>> found = ls.fields(op, (24, 24), at="output", channels="each")
    >>> found.receptive.energy.shape, found.projective.energy.shape
    """

    receptive: Field
    projective: Field

    def __str__(self) -> str:
        return f"{self.receptive}\n{self.projective}"

    def _columns(self) -> dict[str, list[Any]]:
        ends = self.receptive._columns(), self.projective._columns()
        return {name: ends[0][name] + ends[1][name] for name in ends[0]}


@torch.no_grad()
def fields(
    op: MatrixFreeOperator,
    pixel: Pixel,
    at: str = "input",
    channels: Channels = "sum",
    share: float = 0.9,
    within: float | None = None,
) -> Fields:
    """The receptive field, F^T delta, and the projective field, F delta (Fig. 7), at a pixel.

    `op` maps a picture (c, h, w) to a picture (C, H, W). `pixel` (row, column) is one of the input,
    or with `at` "output" of the output; the other field is probed at the pixel that corresponds.
    `channels`: "sum" probes all channels of the pixel at once (P = 1), "each" one after another, a
    list the channels that it names. Negative pixels and channels count from the end. `within`:
    pixels of the input, None: an eighth of its shorter side. ValueError if op makes no picture of a
    picture, and for a pixel or channel outside, `at`, `channels`, share not in 0 ... 1 or within
    < 0.

    >>> found = ls.fields(op, (24, 24))
    >>> found.receptive.values[0], found.receptive.radius, found.projective.away
    """
    require_pictures(op)
    share, within = checked_reach(op, share, within)
    pixels = corresponding(op, pixel, at)
    made = []
    for kind, space in (("receptive", "output"), ("projective", "input")):
        probed = pixels[space]
        shape = op.output_shape if space == "output" else op.input_shape
        probes = _probes(op, shape, probed, channels)
        support = _support(op, kind, probes, probed)
        values = op.transpose(probes) if space == "output" else op.filter(probes)
        energy = values.double().square().sum(1)
        centre = counterpart(op, kind, probed)
        radius, away = reach(energy, distances(op, kind, probed), share, within)
        reached = radius, within, away, support
        made.append(Field(kind, probed, centre, values, energy, share, *reached))
    return Fields(*made)


@dataclass(frozen=True, eq=False)
class LocalField:
    """A field where it may be other than zero: `values` (C, h, w) in the box of channels, rows and
    columns, each (start, end); `radius` and `away` as in `Field`.
    """

    kind: str
    pixel: Pixel
    centre: tuple[float, float]
    box: Box
    values: Tensor
    share: float
    radius: float
    within: float
    away: float


@torch.no_grad()
def local_field(
    op: FrozenNetwork,
    kind: str,
    pixel: Pixel,
    channel: int | None = None,
    share: float = 0.9,
    within: float | None = None,
) -> LocalField:
    """One of the two `fields` at a pixel of the space that it is probed in, at the cost of its box.

    `kind`: "receptive", of a pixel of the output, or "projective", of one of the input; `channel`
    None probes all channels at once. ValueError as `fields`.

    local_field(op, "receptive", (72, 72)).values
    """
    require_pictures(op)
    share, within = checked_reach(op, share, within)
    if kind not in ("receptive", "projective"):
        raise ValueError(f'kind wants "receptive" or "projective", was given {kind!r}')
    at = "output" if kind == "receptive" else "input"
    pixel = corresponding(op, pixel, at)[at]
    channels = op.output_shape[0] if kind == "receptive" else op.input_shape[0]
    if channel is not None and not -channels <= channel < channels:
        raise ValueError(f"channel wants 0 ... {channels - 1}, was given {channel}")
    places = [(c, *pixel) for c in (range(channels) if channel is None else [channel])]
    boxes = op.boxes(rows=places) if kind == "receptive" else op.boxes(columns=places)
    box, values = _summed(boxes)
    energy = values.double().square().sum(0, keepdim=True)
    radius, away = math.nan, math.nan
    if energy.numel():
        far = distances(op, kind, pixel, box[1:])
        radius, away = (v.item() for v in reach(energy, far, share, within))
    centre = counterpart(op, kind, pixel)
    return LocalField(kind, pixel, centre, box, values, share, radius, within, away)


def _summed(boxes: Sequence[tuple[Box, Tensor]]) -> tuple[Box, Tensor]:
    """The sum of values in boxes, in the smallest box around them."""
    some = [(box, values) for box, values in boxes if values.numel()] or boxes[:1]
    around = tuple(
        (min(a for a, _ in ends), max(b for _, b in ends))
        for ends in zip(*(box for box, _ in some), strict=True)
    )
    total = some[0][1].new_zeros([end - start for start, end in around])
    for box, values in some:
        inside = [slice(a - s, b - s) for (a, b), (s, _) in zip(box, around, strict=True)]
        total[tuple(inside)] += values
    return around, total


def _support(
    op: MatrixFreeOperator, kind: str, probes: Tensor, pixel: Pixel
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    told = getattr(op, "support", None)
    if told is None:
        return None
    channels = (probes != 0).any(0).flatten(1).any(1).nonzero()[:, 0].tolist()
    places = [(c, *pixel) for c in channels]
    boxes = told(rows=places) if kind == "receptive" else told(columns=places)
    rows, columns = ((min(b[d][0] for b in boxes), max(b[d][1] for b in boxes)) for d in (-2, -1))
    return rows, columns


def reach(energy: Tensor, distance: Tensor, share: float, within: float) -> tuple[Tensor, Tensor]:
    """Of energies (P, H, W): the radius that holds `share` of each, and the share beyond `within`.

    `distance` is (H, W), or (P, H, W). Returns two (P,) in float64, nan where there is no energy.

    radius, away = reach(energy, distances(op, "receptive", (7, 7)), 0.9, 4.0)
    """
    distance = distance.expand_as(energy).flatten(1)
    near, order = distance.sort(1)
    curve = energy.double().flatten(1).gather(1, order).cumsum(1)
    total = curve[:, -1:]
    place = torch.searchsorted(curve, share * total).clamp(max=curve.shape[1] - 1)
    radius = near.gather(1, place)[:, 0]
    away = torch.where(distance > within, energy.flatten(1), 0.0).sum(1, dtype=torch.float64)
    nothing = total[:, 0] == 0
    return radius.masked_fill(nothing, torch.nan), away / total[:, 0]  # 0 / 0 is nan


def distances(
    op: MatrixFreeOperator,
    kind: str,
    pixel: tuple[Any, Any],
    within: Sequence[tuple[int, int]] | None = None,
) -> Tensor:
    """How far each pixel of a field lies from its centre, in pixels of the input: (H, W), float64.

    `pixel` may hold two tensors (P, 1, 1); then it is (P, H, W). `within`: the rows (start, end)
    and columns to tell of, None: all.

    distances(op, "projective", (24, 24))
    """
    space = op.input_shape if kind == "receptive" else op.output_shape
    within = within or [(0, space[-2]), (0, space[-1])]
    squares = []
    for axis, centre in zip((-2, -1), counterpart(op, kind, pixel), strict=True):
        unit = space[axis] / op.input_shape[axis]
        places = torch.arange(*within[axis], dtype=torch.float64, device=op.device)
        places = places[:, None] if axis == -2 else places
        squares.append(((places - centre) / unit).square())
    return (squares[0] + squares[1]).sqrt()


def counterpart(op: MatrixFreeOperator, kind: str, pixel: tuple[Any, Any]) -> tuple[Any, Any]:
    """Where the centre of the field of a pixel (row, column) lies: numbers, not always whole.

    counterpart(op, "receptive", (72, 72))    # (23.66..., 23.66...) where op enlarges by 3
    """
    ends = op.output_shape, op.input_shape
    probed, answered = ends if kind == "receptive" else ends[::-1]
    scale = [answered[axis] / probed[axis] for axis in (-2, -1)]
    row, column = ((p + 0.5) * s - 0.5 for p, s in zip(pixel, scale, strict=True))
    return row, column


def corresponding(op: MatrixFreeOperator, pixel: Pixel, at: str) -> dict[str, Pixel]:
    """The pixels of the input and of the output that correspond; one of them is given.

    corresponding(op, (24, 24), "input")["output"]
    """
    if at not in ("input", "output"):
        raise ValueError(f'at wants "input" or "output", was given {at!r}')
    shapes = {"input": op.input_shape[-2:], "output": op.output_shape[-2:]}
    row, column = pixel
    height, width = shapes[at]
    if not (-height <= row < height and -width <= column < width):
        raise ValueError(f"pixel {row},{column} lies outside the {height} x {width} {at}")
    pixel = row, column = row % height, column % width
    other = "output" if at == "input" else "input"
    i, j = (
        int((p + 0.5) * theirs / ours)
        for p, theirs, ours in zip(pixel, shapes[other], shapes[at], strict=True)
    )
    return {at: (row, column), other: (i, j)}


def require_pictures(op: MatrixFreeOperator) -> None:
    """ValueError unless op maps pictures to pictures.

    require_pictures(op)
    """
    if len(op.input_shape) != 3 or len(op.output_shape) != 3:
        raise ValueError(
            "fields want a network that makes a picture (C, H, W) of a picture, this one makes "
            f"{op.output_shape} of {op.input_shape}"
        )


def checked_reach(
    op: MatrixFreeOperator, share: float, within: float | None
) -> tuple[float, float]:
    """`share` and `within` with its default filled in; ValueError if one is out of range.

    checked_reach(op, 0.9, None)
    """
    require_reach(share, within)
    return float(share), _NEAR * min(op.input_shape[-2:]) if within is None else float(within)


def require_reach(share: float, within: float | None) -> None:
    """ValueError if one of them is out of range.

    require_reach(0.9, None)
    """
    if not 0 < share <= 1:
        raise ValueError(f"share wants a number above 0 and up to 1, was given {share}")
    if within is not None and not within >= 0:
        raise ValueError(f"within wants 0 pixels or more, was given {within}")


def _probes(
    op: MatrixFreeOperator, shape: tuple[int, ...], pixel: Pixel, channels: Channels
) -> Tensor:
    row, column = pixel
    if channels == "sum":
        probes = torch.zeros(1, *shape, dtype=op.dtype, device=op.device)
        probes[0, :, row, column] = 1
        return probes
    if channels == "each":
        channels = range(shape[0])
    if isinstance(channels, str) or not all(-shape[0] <= c < shape[0] for c in channels):
        raise ValueError(
            f'channels wants "sum", "each" or a list of 0 ... {shape[0] - 1}, was given '
            f"{channels!r}"
        )
    probes = torch.zeros(len(channels), *shape, dtype=op.dtype, device=op.device)
    for probe, channel in zip(probes, channels, strict=True):
        probe[channel, row, column] = 1
    return probes
