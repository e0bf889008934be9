"""Which pictures a tour has, and what is said beneath them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..study.close_up import triplet_windows
from ..study.tour import Tour
from ..zoo.preprocess import rgb
from . import alternatives, pictures
from .digits import minus

# Rows and eigen-inputs of a classifier are noise-like: its few largest coefficients would leave
# all others pale.
_SATURATED = 0.002
_ENTRIES = 4
_PER_INPUT = "output per unit of input, mean over colours"
_X0, _Y = "input x\u2080", "output y"
_COLOURS = {3: ("red", "green", "blue"), 1: ("grey",)}


@dataclass(frozen=True)
class Picture:
    """A PNG, the stem of its file, the caption beneath it, what it shows in words, and its room on
    the page: a "panel" among others, a "chart" or a "large" one. `link` is an address that shows
    the same, if any does.
    """

    name: str
    caption: str
    png: bytes
    alternative: str
    room: str = "panel"
    link: str = ""


def gallery(tour: Tour) -> Iterator[Picture]:
    """The pictures of a tour, one by one.

    for picture in gallery(found):
        Path(picture.name + ".png").write_bytes(picture.png)
    """
    height, width = tour.x0.shape[1:]
    framed = tour.framing.replace(" x ", " \u00d7 ") or f"{width} \u00d7 {height} pixels"
    yield _photo("input", f"The input x\u2080: {framed}.", _input(tour), _X0)
    yield from (_scores if tour.is_classifier else _images)(tour)
    yield from _triplets(tour)


def grey(values: Tensor) -> Tensor:
    """The mean over colours, (C, H, W) -> (H, W), in float64.

    grey(torch.rand(3, 4, 4))
    """
    return values.double().mean(0)


def _input(tour: Tour) -> Tensor:
    return rgb(tour.x0, tour.preprocess)


def _photo(name: str, caption: str, values: Tensor, title: str, mark=None) -> Picture:
    circle = f"a circle at row {mark[0]:g}, column {mark[1]:g}" if mark else ""
    said = alternatives.of_photo(title, values, circle)
    return Picture(name, caption, pictures.photo(values, title, mark), said)


def _images(tour: Tour) -> Iterator[Picture]:
    height, width = tour.y.shape[1:]
    y, filtered = tour.shown(tour.y), tour.shown(tour.filtered)
    own = f", {y.words}" if y.words else ""
    yield _photo("output", f"The output y, {width} \u00d7 {height} pixels{own}.", y.picture, _Y)
    in_words = f"on a scale of its own, {filtered.words}"
    if not filtered.words:
        in_words = "in the colours of y, cut off below black and above white"
    yield _photo(
        "filtered", f"The filter\u2019s part F x\u2080 {in_words}.", filtered.picture, "F x\u2080"
    )
    residual = grey(tour.residual)
    yield Picture(
        "residual",
        "The residual r: what the frozen network answers to an input of zeros.",
        pictures.signed(residual, "residual r", _levels(tour), scale=_usual(residual)),
        alternatives.of_map("residual r", residual),
    )
    row, column = tour.row, tour.column
    colour = _colour(tour, tour.y.shape[0], row.probe[0])
    yield _photo(
        "probe-output",
        f"The probed output pixel, row {row.probe[1]}, column {row.probe[2]}, {colour}.",
        y.picture,
        _Y,
        column.at,
    )
    yield from _field("row", row.values, row.at, row.window, "receptive", "input")
    yield _over_photo(tour, grey(row.values), row.window, "The same over the input")
    colour = _colour(tour, tour.x0.shape[0], column.probe[0])
    yield _photo(
        "probe-input",
        f"The probed input pixel, row {column.probe[1]}, column {column.probe[2]}, {colour}.",
        _input(tour),
        _X0,
        row.at,
    )
    yield from _field("column", column.values, column.at, column.window, "projective", "output")


def _levels(tour: Tour) -> str:
    unit = "output, mean over colours"
    if len(tour.y) == len(tour.x0):
        low, high = (level + 0.0 for level in tour.preprocess.levels())  # no minus before a zero
        unit += f" (black is {low:g}, white {high:g})"
    return minus(unit)


def _field(name: str, values: Tensor, mark, window, kind: str, where: str) -> Iterator[Picture]:
    shown = grey(values)
    circle = "the circle marks the probed pixel"
    framed = ", the frame the close-up" if window else ""
    yield Picture(
        name,
        f"The {kind} filter, on the {where}\u2019s pixels; {circle}{framed}.",
        pictures.signed(shown, f"{name} of F", _PER_INPUT, mark=mark, window=window),
        alternatives.of_map(f"{name} of F", shown, f"{circle}{framed}"),
    )
    if window:
        top, left, side = window
        yield Picture(
            f"{name}-close",
            "The same, close up.",
            pictures.signed(shown, f"{name} of F, close up", _PER_INPUT, mark=mark, crop=window),
            alternatives.of_map(
                f"{name} of F, its {side} by {side} pixels from row {top}, column {left}", shown
            ),
        )


def _over_photo(tour: Tour, row: Tensor, window, caption: str) -> Picture:
    """The row of F over the photo; a small one with so much of the photo that it can be told."""
    drawn = pictures.over(
        _input(tour),
        row,
        "row of F over x\u2080",
        _PER_INPUT,
        scale=_usual(row) if tour.is_classifier else None,
        crop=_wider(window, row.shape),
        side=pictures.LARGE if tour.is_classifier else pictures.SIDE,
    )
    return Picture(
        "row-photo",
        f"{caption}: the stronger a weight, the more its colour covers the photo.",
        drawn,
        alternatives.of_map("row of F over the input in grey", row),
        "large" if tour.is_classifier else "panel",
    )


def _wider(window, shape) -> tuple[int, int, int] | None:
    """Three times as wide, inside of the picture; None for what is no part of it."""
    if window is None or 3 * window[2] >= min(shape):
        return None
    side = window[2]
    top, left = (
        min(max(start - side, 0), extent - 3 * side)
        for start, extent in zip(window[:2], shape, strict=True)
    )
    return top, left, 3 * side


def _scores(tour: Tour) -> Iterator[Picture]:
    names, scores = [score.name for score in tour.top], [score.score for score in tour.top]
    yield Picture(
        "scores",
        f"The {len(tour.top)} best scores y, before a softmax.",
        pictures.bars(names, scores, "best scores y", "score", False),
        alternatives.of_bars("best scores", names, scores),
        "chart",
    )
    filtered, residual = [s.filter for s in tour.top], [s.residual for s in tour.top]
    yield Picture(
        "parts",
        "Each of these scores as the sum of its two parts: y = F x\u2080 + r.",
        pictures.parts(names, filtered, residual, "the parts of each score", "score"),
        alternatives.of_bars("F x\u2080 of each score", names, filtered)
        + " "
        + alternatives.of_bars("r of each score", names, residual),
        "chart",
    )
    values = grey(tour.row.values)
    best, place = tour.top[0], (tour.column.probe[1], tour.column.probe[2])
    circle = "the circle marks the pixel of the next section"
    yield Picture(
        "row",
        f"The row of F for the score of \u201c{best.name}\u201d, on the input\u2019s pixels; "
        f"{circle}.",
        pictures.signed(
            values,
            "row of F",
            "score per unit of input, mean over colours",
            scale=_usual(values),
            mark=place,
            side=pictures.LARGE,
        ),
        alternatives.of_map(f"row of F for \u201c{best.name}\u201d", values, circle),
        "large",
    )
    yield _over_photo(tour, values, None, "The same row over the input")
    colour = _colour(tour, tour.x0.shape[0], tour.column.probe[0])
    yield _photo(
        "probe-input",
        f"The probed input pixel, row {place[0]}, column {place[1]}, {colour}: the one with the "
        "largest weight in that row, unless another was chosen.",
        _input(tour),
        _X0,
        place,
    )
    yield _extremes(
        tour,
        "column",
        "The column of F for that pixel: the scores that it raises and lowers most.",
        tour.column.values,
        "column of F",
        "score per unit of input",
    )


def _triplets(tour: Tour) -> Iterator[Picture]:
    found = tour.svd
    values = found.S.tolist()
    yield Picture(
        "sigma",
        f"The largest singular values of F, with their error bars: {found.bars}.",
        pictures.spectrum(values, found.errors.tolist(), "singular values", found.bars),
        alternatives.of_bars(
            "singular values", [f"\u03c3{subscript(i + 1)}" for i in range(len(values))], values
        ),
        "chart",
    )
    yield from (_score_triplets if tour.is_classifier else _image_triplets)(tour)


def _score_triplets(tour: Tour) -> Iterator[Picture]:
    inputs = [grey(v) for v in tour.svd.V]
    scale = _usual(torch.stack(inputs))
    for i, v in enumerate(inputs):
        yield _vector(i, "input", tour.svd.V[i], v, scale, None)
        u = f"u{subscript(i + 1)}"
        yield _extremes(
            tour,
            f"triplet-{i + 1}-output",
            f"Eigen-output {u}: its largest and its smallest entries.",
            tour.svd.U[i],
            f"eigen-output {u}",
            "entry",
        )


def _image_triplets(tour: Tour) -> Iterator[Picture]:
    inputs, outputs = [grey(v) for v in tour.svd.V], [grey(u) for u in tour.svd.U]
    of_inputs, of_outputs = (max(x.abs().max().item() for x in xs) for xs in (inputs, outputs))
    windows = [triplet_windows(u, v) for u, v in zip(tour.svd.U, tour.svd.V, strict=True)]
    frames = [(window[1], str(i + 1)) for i, window in enumerate(windows) if window]
    if frames:
        places = "; ".join(f"{name} at row {w[0]}, column {w[1]}" for w, name in frames)
        yield Picture(
            "places",
            "Where the eigen-inputs lie: each frame is shown close up below.",
            pictures.photo(_input(tour), _X0, frames=frames),
            alternatives.of_photo(_X0, _input(tour), f"the frames {places}"),
        )
    for i, window in enumerate(windows):
        of_output, of_input = window or (None, None)
        yield _vector(i, "input", tour.svd.V[i], inputs[i], of_inputs, of_input)
        yield _vector(i, "output", tour.svd.U[i], outputs[i], of_outputs, of_output)


def _vector(i: int, end: str, vector: Tensor, shown: Tensor, scale: float, crop) -> Picture:
    title = f"eigen-{end} {'v' if end == 'input' else 'u'}{subscript(i + 1)}"
    share = f"; {_grey_share(vector):.0%} of its energy is grey" if len(vector) > 1 else ""
    return Picture(
        f"triplet-{i + 1}-{end}",
        f"{title.capitalize()}{share}.",
        pictures.signed(
            shown,
            title,
            "entry, mean over colours",
            scale=scale,
            crop=crop,
            side=pictures.SMALL,
        ),
        alternatives.of_map(title, shown),
    )


def _extremes(
    tour: Tour, name: str, caption: str, values: Tensor, title: str, unit: str
) -> Picture:
    """Bars of the largest and the smallest entries, in descending order."""
    order = values.argsort(descending=True).tolist()
    chosen = order if len(order) <= 2 * _ENTRIES else order[:_ENTRIES] + order[-_ENTRIES:]
    names, sizes = [tour.class_name(index) for index in chosen], values[chosen].tolist()
    said = alternatives.of_bars(f"{title}, largest and least entries", names, sizes)
    return Picture(name, caption, pictures.bars(names, sizes, title, unit), said, "chart")


def _usual(values: Tensor) -> float:
    """The size below which all but a few of the values lie; the largest where these are no more
    than twice as large.
    """
    sizes = values.abs().flatten().sort().values
    usual, largest = sizes[int((1 - _SATURATED) * (len(sizes) - 1))].item(), sizes[-1].item()
    return largest if largest <= 2 * usual else usual


def _grey_share(values: Tensor) -> float:
    """The share of the energy that is the same in all colours."""
    total = values.double().square().sum().item()
    return len(values) * grey(values).square().sum().item() / total if total else 0.0


def _colour(tour: Tour, channels: int, channel: int) -> str:
    names = _COLOURS.get(channels, ())
    names = names[::-1] if tour.preprocess.order == "BGR" else names
    return f"{names[channel]}" if names else f"channel {channel}"


def subscript(number: int) -> str:
    """A number in subscript digits.

    "x" + subscript(0)
    """
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
