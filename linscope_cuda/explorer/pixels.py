"""Fields at a pixel, and whole pictures and their two parts, as answers."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..study.close_up import detailed_pixel, window
from ..study.errors import BadInput
from ..study.fields import LocalField, local_field
from ..study.tour import TOP
from .asked import Asked
from .library import Library
from .message import Message

_COLOURS = {"RGB": ("red", "green", "blue"), "BGR": ("blue", "green", "red"), "L": ("grey",)}


def as_photo(values: Tensor) -> np.ndarray:
    """A picture (1 or 3, H, W) in 0..1 as bytes (H, W, 3)."""
    rgb = values.double().clamp(0, 1).mul(255).round().expand(3, -1, -1)
    return rgb.permute(1, 2, 0).byte().cpu().contiguous().numpy()


def opened(asked: Asked, library: Library) -> Message:
    """The network frozen: its sizes, its residual, x0 and y as photos, or its scores."""
    asked.told(0.0, f"freezing {asked.subject.model}")
    looked = library.looked(asked.subject)
    with looked.lock:
        op, system = looked.op, looked.system
        facts = system.facts
        arrays = {"input": as_photo(system.input)}
        if looked.is_classifier:
            scores = op.output[0].double().cpu()
            arrays["scores"] = scores.numpy()
            facts["labels"] = [looked.class_name(i) for i in range(len(scores))]
        else:
            arrays["output"] = as_photo(system.output)
        facts["pixel"] = list(detailed_pixel(op.x0[0]))
        facts["classifier"] = looked.is_classifier
        facts["channels"] = {
            "input": _colours(op.input_shape[0], system.preprocess.order),
            "output": _colours(op.output_shape[0], system.preprocess.order),
        }
        facts["source"], facts["policy"] = looked.source, op.policy.default
        facts["python"] = looked.python
    return Message(facts, arrays)


def parts(asked: Asked, library: Library) -> Message:
    """y = F x0 + r: what the filter makes of x0, and the residual; of a classifier, those of its
    best scores too.
    """
    looked = library.looked(asked.subject)
    op = looked.op
    with looked.lock:
        filtered, residual = op.filter(op.x0)[0].cpu(), op.residual[0].cpu()
        output = op.output[0].cpu()
        arrays = {"filtered": filtered, "residual": residual}
        arrays = {name: t.numpy().astype(np.float32) for name, t in arrays.items()}
        header: dict[str, object] = {
            "python": f"{looked.python}filtered, residual = op.filter(op.x0)[0], op.residual[0]\n"
        }
        if looked.is_classifier:
            best = output.topk(min(TOP, len(output))).indices.tolist()
            header["best"] = [
                {
                    "label": k,
                    "name": looked.class_name(k),
                    "filtered": filtered[k].item(),
                    "residual": residual[k].item(),
                    "score": output[k].item(),
                }
                for k in best
            ]
        else:
            arrays["shown"] = as_photo(looked.system.shown(filtered))
    return Message(header, arrays)


def _colours(channels: int, order: str) -> list[str]:
    names = _COLOURS[order]
    return list(names) if len(names) == channels else [f"channel {c}" for c in range(channels)]


def field(asked: Asked, library: Library) -> Message:
    """The receptive field of an output's pixel, or the projective one of an input's, in its box."""
    looked = library.looked(asked.subject)
    if looked.is_classifier:
        raise BadInput("fields want a network that makes a picture, this one gives scores")
    at, pixel = asked.choice("at", ("output", "input")), asked.pixel()
    channel = asked.message.header.get("channel")
    op = looked.op
    shapes = op.output_shape, op.input_shape
    probed, answered = shapes if at == "output" else shapes[::-1]
    if channel is not None:
        channel = asked.whole("channel", 0, probed[0] - 1)
    kind = "receptive" if at == "output" else "projective"
    share, within = asked.number("share", 0.9), asked.number("within")
    assert share is not None
    try:
        with looked.lock:
            found = local_field(op, kind, pixel, channel, share, within)
    except ValueError as error:
        raise BadInput(str(error)) from error
    return field_message(found, answered, field_lines(looked.python, at, pixel, channel))


def field_message(found: LocalField, answered: tuple[int, ...], python: str) -> Message:
    """A field as the page shows it: where it lies, how far it reaches, its values."""
    (_, rows, columns), values = found.box, found.values.cpu()
    row, column = (
        min(max(round(c), 0), n - 1) for c, n in zip(found.centre, answered[1:], strict=True)
    )
    close = None
    if values.numel() and values.count_nonzero():
        close = window(values, (rows[0], columns[0]), answered[1:], (row, column))
    header = {
        "pixel": list(found.pixel),
        "field": found.kind,
        "centre": list(found.centre),
        "box": [list(ends) for ends in found.box],
        "extents": list(answered[1:]),
        "share": found.share,
        "radius": found.radius,
        "within": found.within,
        "away": found.away,
        "window": close,
        "python": python,
    }
    return Message(header, {"values": values.numpy().astype(np.float32)})


def field_lines(python: str, at: str, pixel: tuple[int, int], channel: int | None) -> str:
    """The lines that make the same field."""
    kind = "receptive" if at == "output" else "projective"
    channels = "" if channel is None else f", channels=[{channel}]"
    return (
        f'{python}found = ls.fields(op, {pixel}, at="{at}"{channels}).{kind}\n'
        "values, radius, away = found.values[0], found.radius[0], found.away[0]\n"
    )
