"""What results draw of themselves: into anybody's axes, and in a notebook."""

from __future__ import annotations

import base64
import html as escape
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, LogFormatter, MaxNLocator, NullFormatter
from torch import Tensor

from ..display import Display, Drawn, Tabular
from ..frozen.network import FrozenNetwork
from ..linalg.svd import SVD
from ..study.activations import Activations
from ..study.drift import Drift
from ..study.fields import Field, Fields
from ..study.ledger import Ledger
from ..study.sweep import Sweep
from .captions import grey
from .field_sheet import usual_scale
from .pictures import _STYLE, BLUE, GREY, INK, SLATE, _png

_SIDE = 3.2  # inches of a picture
_ROWS = 20  # of a table in a notebook
_PLAIN: Any = {"parse_math": False}  # a module's name may hold a dollar sign


def plot(found: Drawn, axes: Any = None, **options: Any) -> Any:
    """`found.plot(axes)`: one of matplotlib's axes, or an array of as many as it has pictures."""
    drawings = _drawings(found, **options)
    if axes is None:
        from matplotlib import pyplot  # the figures of notebooks and windows

        figure = pyplot.figure(figsize=_size(drawings), layout="constrained")
        axes = figure.subplots(1, len(drawings))
    each = np.atleast_1d(axes)
    if each.shape != (len(drawings),):
        raise ValueError(
            f"{type(found).__name__}.plot draws {len(drawings)} pictures and wants axes for each, "
            f"was given {each.size}"
        )
    _drawn(drawings, each)
    return axes


def html(found: Display) -> str:
    """What a notebook shows of it: its table, or else its text, and its pictures."""
    parts = [_table(found) if isinstance(found, Tabular) else _text(repr(found))]
    if isinstance(found, Drawn) and (drawings := _drawings(found)):
        with rc_context(_STYLE):
            figure = Figure(figsize=_size(drawings), dpi=110, layout="constrained")
            _drawn(drawings, figure.subplots(1, len(drawings), squeeze=False)[0])
            picture = base64.b64encode(_png(figure)).decode()
        alternative = escape.escape(str(found).splitlines()[0], quote=True)
        source = f"data:image/png;base64,{picture}"
        parts.append(f'<img style="max-width: 100%" alt="{alternative}" src="{source}">')
    return "\n".join(parts)


def _text(text: str) -> str:
    return f"<pre>{escape.escape(text)}</pre>"


def _table(found: Tabular) -> str:
    columns = found._columns()
    rows = list(zip(*columns.values(), strict=True))
    lines = ["<table>", _cells(columns, "th"), *(_cells(row, "td") for row in rows[:_ROWS])]
    left = len(rows) - _ROWS
    more = [f"<p>... {left:,} more rows: to_pandas() has all</p>"] if left > 0 else []
    return "\n".join([*lines, "</table>", *more])


def _cells(cells: Any, tag: str) -> str:
    shown = (f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in cells)
    return "<tr>" + "".join(f"<{tag}>{escape.escape(cell)}</{tag}>" for cell in shown) + "</tr>"


def _drawn(drawings: list[Drawing], axes: Any) -> None:
    for draw, place in zip(drawings, axes, strict=True):
        draw(place)


def _size(drawings: list[Drawing]) -> tuple[float, float]:
    return (_SIDE * 1.25 * len(drawings) if len(drawings) > 1 else 1.6 * _SIDE), _SIDE


# ---- What each result draws: a list of functions of axes ----

Drawing = Callable[[Axes], None]


def _drawings(found: Drawn, **options: Any) -> list[Drawing]:
    for kind, draw in _KINDS.items():
        if isinstance(found, kind):
            return draw(found, **options)
    raise TypeError(f"there is no picture of {type(found).__name__}")


def _svd(found: SVD) -> list[Drawing]:
    def draw(axes: Axes) -> None:
        places = range(1, len(found.S) + 1)
        values, errors = found.S.tolist(), found.errors.tolist()
        axes.errorbar(
            places, values, errors, fmt="o", color=BLUE, ecolor=INK, markersize=4, capsize=3
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(0, 1.08 * max(map(sum, zip(values, errors, strict=True)), default=0) or 1)
        _labelled(axes, f"singular values, bars: {found.bars}", "triplet", "\u03c3")

    return [draw]


def _ledger(found: Ledger, output: int = 0, most: int = 20) -> list[Drawing]:
    """The largest contributions to one of the outputs asked for, by its place among them."""
    names, values = ["input", *found.names], torch.cat([found.input[None], found.values])[:, output]
    largest = values.abs().argsort(descending=True)[:most].sort().values.tolist()

    def draw(axes: Axes) -> None:
        _bars(axes, [names[i] for i in largest], values[largest])
        which = "all" if len(largest) == len(names) else f"the largest {len(largest)}"
        title = f"{which} of {len(names)} parts of {found.total[output].item():.4g}"
        _labelled(axes, title, "contribution", "")

    return [draw]


def _activations(found: Activations, output: int = 0, most: int = 20) -> list[Drawing]:
    """The channels that add most to one of the outputs asked for, or take most from it, and what
    each place adds, where places make a picture.
    """
    values, places = found.channels()[output], found.places()[output]
    largest = values.abs().argsort(descending=True)[:most].tolist()

    def channels(axes: Axes) -> None:
        _bars(axes, list(map(str, largest)), values[largest])
        through, total = found.through[output].item(), found.total[output].item()
        title = f"{found.name}: {through:.4g} of {total:.4g}, {len(largest)} of {len(values)}"
        _labelled(axes, title, "contribution", "channel")

    def map_of_places(axes: Axes) -> None:
        _signed(axes, places.cpu(), "what each place adds")

    return [channels, map_of_places] if places.dim() == 2 else [channels]


def _drift(found: Drift) -> list[Drawing]:
    def draw(values: Tensor, name: str) -> Drawing:
        def one(axes: Axes) -> None:
            axes.plot(found.ts.numpy(), values.numpy(), color=BLUE, marker=".")
            if (found.ts > 0).all() and (values > 0).any():
                axes.loglog()
                for axis in (axes.xaxis, axes.yaxis):
                    axis.set_major_formatter(LogFormatter())
                    axis.set_minor_formatter(NullFormatter())
            _labelled(axes, name, "t", "")

        return one

    return [
        draw(found.relative, "error / change foretold"),
        draw(found.share, "share of decisions that flipped"),
    ]


def _field(found: Field, probe: int = 0) -> list[Drawing]:
    """Coefficients, the mean over colours, and their squares: of one of the probed channels."""
    values = grey(found.values[probe].detach().cpu())
    energy = found.energy[probe].cpu()
    radius = found.radius[probe].item()

    def closer(axes: Axes) -> None:
        if found.support:  # beyond it all is zero
            (top, bottom), (left, right) = found.support
            axes.set(xlim=(left - 1.5, right + 0.5), ylim=(bottom + 0.5, top - 1.5))

    def coefficients(axes: Axes) -> None:
        _signed(axes, values, f"{found.kind} field of {found.pixel}", usual_scale(values))
        closer(axes)

    def squares(axes: Axes) -> None:
        largest = energy.max().item() or 1.0
        norm = LogNorm(largest * 1e-6, largest, clip=True)
        drawn = axes.imshow(energy.numpy(), cmap="inferno", norm=norm, interpolation="nearest")
        if not math.isnan(radius):
            axes.plot(*found.centre[::-1], "+", color="white")
        _mapped(axes, drawn, f"energy, {found.share:.0%} within {radius:.3g}", LogFormatter())
        closer(axes)

    return [coefficients, squares]


def _fields(found: Fields, probe: int = 0) -> list[Drawing]:
    return [_field(end, probe)[0] for end in (found.receptive, found.projective)]


_MAPS = {
    "radius": "radius, pixels of the input",
    "energy": "energy",
    "away": "share away from the diagonal",
    "origin": "where that energy lies",
}


def _sweep(found: Sweep, what: str = "radius") -> list[Drawing]:
    if what not in _MAPS:
        raise ValueError(f"Sweep.plot wants one of {', '.join(_MAPS)}, was given {what!r}")
    values = getattr(found, what)
    # Of every so many pixels, or of all of the other space.
    ends = (found.rows, found.columns) if what != "origin" else map(range, values.shape)
    (top, bottom), (left, right) = ((places[0], places[-1]) for places in map(list, ends))
    rows, columns = values.shape
    down, across = (
        (last - first) / max(count - 1, 1) / 2 or 0.5
        for first, last, count in ((top, bottom, rows), (left, right, columns))
    )

    def draw(axes: Axes) -> None:
        extent = (left - across, right + across, bottom + down, top - down)
        drawn = axes.imshow(values.numpy(), cmap="viridis", extent=extent, interpolation="nearest")
        _mapped(axes, drawn, f"{found.kind} of F: {_MAPS[what]}")

    return [draw]


def _network(found: FrozenNetwork) -> list[Drawing]:
    """x0, F x0, r and y where they are pictures: three channels as colours, else their mean."""
    x0, y, r = found.x0[0], found.output[0], found.residual[0]
    named = {"x0": x0, "F x0": y - r, "r": r, "y": y}
    return [
        _picture(name, values.detach().cpu())
        for name, values in named.items()
        if values.dim() == 3 and not values.is_complex()
    ]


def _picture(name: str, values: Tensor) -> Drawing:
    values = values.double()
    low, high = values.min().item(), values.max().item()

    def draw(axes: Axes) -> None:
        span = f"{name}: {low:.3g} ... {high:.3g}"
        if len(values) == 3:
            colours = ((values - low) / (high - low or 1)).permute(1, 2, 0)
            axes.imshow(colours.numpy(), interpolation="nearest")
            axes.set_title(span, fontsize=9, loc="left")
        else:
            _signed(axes, values.mean(0), span)

    return draw


def _bars(axes: Axes, names: list[str], values: Tensor) -> None:
    axes.barh(range(len(names)), values.tolist(), 0.7, color=SLATE)
    axes.set_yticks(range(len(names)), names, fontsize=7, **_PLAIN)
    axes.invert_yaxis()
    axes.axvline(0, color=GREY, linewidth=0.8)


def _signed(axes: Axes, values: Tensor, title: str, scale: float | None = None) -> None:
    """A map, blue below and red above a white zero, to `scale`, or the largest magnitude."""
    most = scale or values.abs().max().item() or 1.0
    colours = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
    _mapped(axes, axes.imshow(values.numpy(), interpolation="nearest", **colours), title)


def _labelled(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=9, loc="left", **_PLAIN)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)


def _mapped(axes: Axes, drawn: Any, title: str, bar: Formatter | None = None) -> None:
    axes.set_title(title, fontsize=9, loc="left", **_PLAIN)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure = axes.get_figure()
    assert figure
    figure.colorbar(drawn, ax=axes, fraction=0.046, format=bar)


_KINDS: dict[type[Drawn], Callable[..., list[Drawing]]] = {
    SVD: _svd,
    Ledger: _ledger,
    Activations: _activations,
    Drift: _drift,
    Field: _field,
    Fields: _fields,
    Sweep: _sweep,
    FrozenNetwork: _network,
}
