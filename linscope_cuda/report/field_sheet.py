"""Fields and sweeps as pictures (Fig. 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from ..study.close_up import _window
from ..study.fields import Field, Fields
from ..study.sweep import Sweep
from ..study.system import System
from .captions import grey
from .digits import percent
from .panels import Panel, sheet

# The few largest coefficients at the probe would leave all others white.
_SATURATED = 0.001
_FILTER = {"receptive": "row of F", "projective": "column of F"}
_SPACES = {"receptive": ("output", "input"), "projective": ("input", "output")}


def field_sheet(found: Sequence[tuple[System, Fields]], title: str) -> bytes:
    """Each system's receptive and projective field: where the probe is, the filter, its energy.

    field_sheet([(system, fields(system.op, (24, 24)))], "a pixel of the cat")
    """
    rows = []
    for system, both in found:
        ends = both.receptive, both.projective
        halves = [_row(system, field, named=len(found) > 1) for field in ends]
        # Of several, one row each: both probes belong to one place, so that one photo shows it.
        rows += halves if len(found) == 1 else [[*halves[1][:1], *halves[0][1:], *halves[1][1:]]]
    field = found[0][1].receptive
    return sheet(
        rows,
        title,
        f"Solid circle: {field.share:.0%} of the energy. Dashed: further than {field.within:g} "
        "pixels is away from the diagonal. Distances in pixels of the input.",
    )


def _row(system: System, field: Field, named: bool) -> list[Panel]:
    probed, answered = _SPACES[field.kind]
    op = system.op
    unit = [
        there / here
        for there, here in zip(field.values.shape[-2:], op.input_shape[-2:], strict=True)
    ]
    energy = field.energy.sum(0).cpu()
    radius, away = field.radius.max().item(), field.away.max().item()
    distances = [radius] if radius == field.within else [radius, field.within]
    circles = [(r * unit[0], r * unit[1]) for r in distances if not math.isnan(r)]
    coefficients = grey(field.values.sum(0).cpu())
    row, column = field.pixel
    window = _window(field.values.sum(0).cpu(), _whole(field))
    shown = "output y" if probed == "output" else "input x₀"
    return [
        Panel(
            system.output if probed == "output" else system.input,
            system.name if named else shown,
            mark=field.pixel,
            note=f"{shown}, probed at\nrow {row}, column {column}",
        ),
        Panel(
            coefficients,
            f"{_FILTER[field.kind]}, on the {answered}",
            "signed",
            "output per input, mean over colours",
            note=f"the {field.kind} filter" + (", close up" if window else ""),
            scale=usual_scale(coefficients),
            mark=field.centre,
            circles=circles[:1],
            crop=window,
        ),
        Panel(
            energy,
            f"energy of the {_FILTER[field.kind].split()[0]}",
            "energy",
            "squares, summed over colours",
            note=f"{field.share:.0%} within {radius:.3g} pixels\n"
            f"{percent(away)} away from the diagonal{_theoretical(field)}",
            mark=field.centre,
            circles=circles,
            rectangle=field.support,
        ),
    ]


def _theoretical(field: Field) -> str:
    if field.support is None:
        return ""
    height, width = (end - start for start, end in field.support)
    return f"\nframe: theoretical field, {height} x {width}"


def _whole(field: Field) -> tuple[int, int]:
    """The pixel at the centre."""
    height, width = field.values.shape[-2:]
    row, column = (round(place) for place in field.centre)
    return min(max(row, 0), height - 1), min(max(column, 0), width - 1)


def usual_scale(values: Tensor) -> float | None:
    """The size that all but a thousandth of the values are within; None where that is 0.

    usual_scale(torch.randn(8, 8))
    """
    sizes = values.abs().flatten().sort().values
    return sizes[int((1 - _SATURATED) * (len(sizes) - 1))].item() or None


def sweep_sheet(found: Sweep, system: System, title: str) -> bytes:
    """The maps of a sweep: energy, energy radius, mass away from the diagonal and its origin.

    sweep_sheet(open_sweep("rows.zarr"), system, "all rows")
    """
    probed, answered = _SPACES["receptive" if found.kind == "rows" else "projective"]
    step = found.rows[1] - found.rows[0] if len(found.rows) > 1 else 1
    first = found.rows[0], found.columns[0]
    one = found.kind[:-1]

    def over(values: Tensor, title: str, kind: str, unit: str, note: str) -> Panel:
        return Panel(values, title, kind, unit, note, step=step, first=first)

    radius = found.radius[~found.radius.isnan()]
    middle = radius.median().item() if len(radius) else math.nan
    whole = found.energy.nan_to_num().sum().item()
    return sheet(
        [
            [
                Panel(
                    system.output if probed == "output" else system.input,
                    f"{probed} {'y' if probed == 'output' else 'x₀'}",
                    note=f"{system.name}\nits pixels were probed",
                ),
                over(
                    found.energy,
                    f"energy of each {one}",
                    "positive",
                    "squares, summed over colours",
                    f"in all {whole:.4g}",
                ),
                over(
                    found.radius,
                    f"radius of {found.share:.0%} of the energy",
                    "positive",
                    "pixels of the input",
                    f"median {middle:.3g}",
                ),
            ],
            [
                Panel(
                    system.input if answered == "input" else system.output,
                    f"{answered} {'y' if answered == 'output' else 'x₀'}",
                    note=f"the {found.kind} lie here",
                ),
                over(
                    found.away,
                    "away from the diagonal",
                    "positive",
                    "share of the pixel's energy",
                    f"{percent(found.mass_away)} of all the energy",
                ),
                Panel(
                    found.origin,
                    "where that energy lies",
                    "energy",
                    "squares, summed over probed pixels",
                    note=f"on the {answered}",
                ),
            ],
        ],
        title,
        f"Away from the diagonal: further than {found.within:g} pixels of the input.",
    )
