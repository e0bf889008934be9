"""Which pictures a tour has, and what is said beneath them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..study.close_up import triplet_windows
from ..study.tour import Tour
from ..zoo.preprocess import rgb
from . import pictures

# Rows and eigen-inputs of a classifier are noise-like: its few largest coefficients would leave
# all others pale.
_SATURATED = 0.002
_ENTRIES = 4
_PER_INPUT = "output per unit of input, mean over colours"
_COLOURS = {3: ("red", "green", "blue"), 1: ("grey",)}


@dataclass(frozen=True)
class Picture:
    """A PNG, the stem of its file, the caption beneath it and its room on the page: a "panel"
    among others, a "chart" or a "large" one. `link` is an address that shows the same, if any does.
    """

    name: str
    caption: str
    png: bytes
    room: str = "panel"
    link: str = ""


def gallery(tour: Tour) -> Iterator[Picture]:
    """The pictures of a tour, one by one.

    for picture in gallery(found):
        Path(picture.name + ".png").write_bytes(picture.png)
    """
    height, width = tour.x0.shape[1:]
    yield Picture(
        "input",
        f"The input x\u2080, {width} \u00d7 {height} pixels.",
        pictures.photo(rgb(tour.x0, tour.preprocess), "input x\u2080"),
    )
    yield from (_scores if tour.is_classifier else _images)(tour)
    yield from _triplets(tour)


def grey(values: Tensor) -> Tensor:
    """The mean over colours, (C, H, W) -> (H, W), in float64.

    grey(torch.rand(3, 4, 4))
    """
    return values.double().mean(0)


def _images(tour: Tour) -> Iterator[Picture]:
    height, width = tour.y.shape[1:]
    low, high = (level + 0.0 for level in tour.preprocess.levels())  # no minus before a zero
    yield Picture(
        "output",
        f"The output y, {width} \u00d7 {height} pixels.",
        pictures.photo(rgb(tour.y, tour.preprocess), "output y"),
    )
    yield Picture(
        "filtered",
        "The filter's part F x\u2080 in the colours of y, cut off below black and above white.",
        pictures.photo(rgb(tour.filtered, tour.preprocess), "F x\u2080"),
    )
    yield Picture(
        "residual",
        "The residual r: what the frozen network answers to an input of zeros.",
        pictures.signed(
            grey(tour.residual),
            "residual r",
            f"output, mean over colours (black is {low:g}, white {high:g})".replace("-", "\u2212"),
        ),
    )
    row, column = tour.row, tour.column
    colour = _colour(tour, tour.y.shape[0] // 2)
    yield Picture(
        "probe-output",
        f"The probed output pixel, row {row.probe[1]}, column {row.probe[2]}, {colour}.",
        pictures.photo(rgb(tour.y, tour.preprocess), "output y", column.at),
    )
    yield from _field(
        "row", row.values, row.at, row.window, "The receptive filter, on the input's pixels"
    )
    yield Picture(
        "probe-input",
        f"The probed input pixel, row {column.probe[1]}, column {column.probe[2]}, {colour}.",
        pictures.photo(rgb(tour.x0, tour.preprocess), "input x\u2080", row.at),
    )
    yield from _field(
        "column",
        column.values,
        column.at,
        column.window,
        "The projective filter, on the output's pixels",
    )


def _field(name: str, values: Tensor, mark, window, caption: str) -> Iterator[Picture]:
    where = "; the circle marks the probed pixel"
    yield Picture(
        name,
        caption + where + (", the frame the close-up." if window else "."),
        pictures.signed(grey(values), f"{name} of F", _PER_INPUT, mark=mark, window=window),
    )
    if window:
        yield Picture(
            f"{name}-close",
            "The same, close up.",
            pictures.signed(
                grey(values), f"{name} of F, close up", _PER_INPUT, mark=mark, crop=window
            ),
        )


def _scores(tour: Tour) -> Iterator[Picture]:
    names = [score.name for score in tour.top]
    yield Picture(
        "scores",
        f"The {len(tour.top)} best scores y, before a softmax.",
        pictures.bars(names, [score.score for score in tour.top], "best scores y", "score", False),
        "chart",
    )
    yield Picture(
        "parts",
        "Each of these scores as the sum of its two parts: y = F x\u2080 + r.",
        pictures.parts(
            names,
            [score.filter for score in tour.top],
            [score.residual for score in tour.top],
            "the parts of each score",
            "score",
        ),
        "chart",
    )
    values = grey(tour.row.values)
    best, place = tour.top[0], (tour.column.probe[1], tour.column.probe[2])
    yield Picture(
        "row",
        f"The row of F for the score of \u201c{best.name}\u201d, on the input's pixels. The circle "
        "marks the pixel of the next section.",
        pictures.signed(
            values,
            "row of F",
            "score per unit of input, mean over colours",
            scale=_usual(values),
            mark=place,
            side=pictures.LARGE,
        ),
        "large",
    )
    colour = _colour(tour, tour.column.probe[0])
    yield Picture(
        "probe-input",
        f"The probed input pixel, row {place[0]}, column {place[1]}, {colour}: the one with the "
        "largest weight in that row, unless another was chosen.",
        pictures.photo(rgb(tour.x0, tour.preprocess), "input x\u2080", place),
    )
    yield Picture(
        "column",
        "The column of F for that pixel: the scores that it raises and lowers most.",
        _extremes(tour, tour.column.values, "column of F", "score per unit of input"),
        "chart",
    )


def _triplets(tour: Tour) -> Iterator[Picture]:
    found = tour.svd
    yield Picture(
        "sigma",
        f"The largest singular values of F, with their error bars: {found.bars}.",
        pictures.spectrum(found.S.tolist(), found.errors.tolist(), "singular values", found.bars),
        "chart",
    )
    yield from (_score_triplets if tour.is_classifier else _image_triplets)(tour)


def _score_triplets(tour: Tour) -> Iterator[Picture]:
    inputs = [grey(v) for v in tour.svd.V]
    scale = _usual(torch.stack(inputs))
    for i, v in enumerate(inputs):
        yield _vector(i, "input", tour.svd.V[i], v, scale, None)
        yield Picture(
            f"triplet-{i + 1}-output",
            f"Eigen-output u{subscript(i + 1)}: its largest and its smallest entries.",
            _extremes(tour, tour.svd.U[i], f"eigen-output u{subscript(i + 1)}", "entry"),
            "chart",
        )


def _image_triplets(tour: Tour) -> Iterator[Picture]:
    inputs, outputs = [grey(v) for v in tour.svd.V], [grey(u) for u in tour.svd.U]
    of_inputs, of_outputs = (max(x.abs().max().item() for x in xs) for xs in (inputs, outputs))
    windows = [triplet_windows(u, v) for u, v in zip(tour.svd.U, tour.svd.V, strict=True)]
    frames = [(window[1], str(i + 1)) for i, window in enumerate(windows) if window]
    if frames:
        yield Picture(
            "places",
            "Where the eigen-inputs lie: each frame is shown close up below.",
            pictures.photo(rgb(tour.x0, tour.preprocess), "input x\u2080", frames=frames),
        )
    for i, window in enumerate(windows):
        of_output, of_input = window or (None, None)
        yield _vector(i, "input", tour.svd.V[i], inputs[i], of_inputs, of_input)
        yield _vector(i, "output", tour.svd.U[i], outputs[i], of_outputs, of_output)


def _vector(i: int, end: str, vector: Tensor, shown: Tensor, scale: float, crop) -> Picture:
    symbol = ("v" if end == "input" else "u") + subscript(i + 1)
    return Picture(
        f"triplet-{i + 1}-{end}",
        f"Eigen-{end} {symbol}; {_grey_share(vector):.0%} of its energy is grey.",
        pictures.signed(
            shown,
            f"eigen-{end} {symbol}",
            "entry, mean over colours",
            scale=scale,
            crop=crop,
            side=pictures.SMALL,
        ),
    )


def _extremes(tour: Tour, values: Tensor, title: str, unit: str) -> bytes:
    """Bars of the largest and the smallest entries, in descending order."""
    order = values.argsort(descending=True).tolist()
    chosen = order if len(order) <= 2 * _ENTRIES else order[:_ENTRIES] + order[-_ENTRIES:]
    names = [tour.class_name(index) for index in chosen]
    return pictures.bars(names, values[chosen].tolist(), title, unit)


def _usual(values: Tensor) -> float:
    """The size below which all but a few of the values lie."""
    sizes = values.abs().flatten().sort().values
    return sizes[int((1 - _SATURATED) * (len(sizes) - 1))].item()


def _grey_share(values: Tensor) -> float:
    """The share of the energy that is the same in all colours."""
    total = values.double().square().sum().item()
    return len(values) * grey(values).square().sum().item() / total if total else 0.0


def _colour(tour: Tour, channel: int) -> str:
    names = _COLOURS.get(tour.x0.shape[0], ())
    names = names[::-1] if tour.preprocess.order == "BGR" else names
    return f"{names[channel]}" if names else f"channel {channel}"


def subscript(number: int) -> str:
    """A number in subscript digits.

    "x" + subscript(0)
    """
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
