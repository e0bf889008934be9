"""One page that answers every pixel of a local network without a server."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_matrix

from ..files import aside
from ..study.errors import BadInput
from ..study.fields import checked_reach, distances, reach
from .asked import Asked
from .library import Library, Looked
from .message import Message
from .pixels import field_lines, opened
from .server import front
from .subject import Subject

MOST_BYTES = 25_000_000
MOST_VALUES = 60_000_000  # 8 bits each, before they are compressed
_TOGETHER = 256  # pixels whose energies are summed at a time
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
_NOTHING = (
    "this page has no server and answers for the pixels of its picture alone: run linscope explore"
)

Progress = Callable[[float, str], object]


def write(
    looked: Looked, start: Subject, path: Path, progress: Progress = lambda share, text: None
) -> int:
    """Writes the page, whole or not at all, and returns its size in bytes.

    Each row of F is kept where it may be other than zero, in 8 bits for each number on a scale of
    its own; columns are read from the rows. BadInput for a classifier, for a network whose fields
    are too large, and for a page over 25 MB.

    write(library.looked(subject), subject, Path("cat.html"))
    """
    text = page(bundle(looked, start, progress)).encode()
    if len(text) > MOST_BYTES:
        raise BadInput(
            f"the page would take {len(text) / 1e6:.0f} MB, and {MOST_BYTES / 1e6:.0f} are allowed:"
            " try a smaller --size"
        )
    try:
        with aside(path) as part:
            part.write_bytes(text)
    except OSError as error:
        raise BadInput(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    return len(text)


def page(message: Message) -> str:
    """The page that holds a bundle."""
    packed = base64.b64encode(gzip.compress(message.packed(), 6, mtime=0)).decode()
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>linscope explore</title>
<link rel="icon" href="data:,">
<style>{front("explore.css")}</style>
</head>
<body class="linscope-page">
<noscript>The explorer wants JavaScript, which is turned off here.</noscript>
<main id="linscope"></main>
<script type="text/plain" id="linscope-bundle">{packed}</script>
<script type="module">{front("explore.js")}</script>
</body>
</html>
"""


def bundle(looked: Looked, start: Subject, progress: Progress) -> Message:
    """All that the page shows: rows of F in 8 bits, and how far every field reaches."""
    op = looked.op
    if looked.is_classifier:
        raise BadInput("a page without a server wants a network that makes a picture of a picture")
    progress(0.1, "where the rows of F lie")
    corner, count = _corners(looked)
    if count > MOST_VALUES:
        raise BadInput(
            f"F has {count:,} values here and a page holds {MOST_VALUES:,}: a network with small "
            "fields, or a smaller --size, is wanted"
        )
    progress(0.3, "all of F")
    F = csr_matrix(op.tosparse(progress=False))
    q, scale, offset = _quantised(F, looked, corner, count)
    arrays = {"q": q, "scale": scale, "corner": corner, "offset": offset}
    share, within = checked_reach(op, 0.9, None)
    for kind, matrix in (("receptive", F), ("projective", csr_matrix(F.T))):
        progress(0.6 if kind == "receptive" else 0.8, f"how far the {kind} fields reach")
        radius, away = _reaches(looked, kind, matrix, share, within)
        arrays |= {f"{kind}_radius": radius, f"{kind}_away": away}
    only = _Only(looked)
    facts = opened(Asked(Message({"subject": {"model": start.model, "photo": start.photo}})), only)
    ends = {"receptive": "output", "projective": "input"}
    lines = {
        kind: _template(field_lines(looked.python, at, (0, 0), None)) for kind, at in ends.items()
    }
    home = {
        "networks": [start.model],
        "photos": [start.photo],
        "policies": [],
        "sizes": [],
        "fixed": True,
        "views": ["pixel"],
    }
    header = {
        "home": home,
        "opened": facts.header,
        "lines": lines,
        "share": share,
        "within": within,
        "nothing": _NOTHING,
    }
    return Message(header, {**arrays, **facts.arrays})


class _Only(Library):
    """A library of one system, whatever its name."""

    def __init__(self, looked: Looked) -> None:
        super().__init__()
        self._only = looked

    def looked(self, subject: Subject) -> Looked:
        return self._only


def _template(lines: str) -> str:
    """The lines with words that the page replaces."""
    return lines.replace("(0, 0)", "PIXEL").replace('").', '"CHANNELS).')


def _corners(looked: Looked) -> tuple[np.ndarray, int]:
    """Top, left, height and width of the rows of each output pixel, and the count of all values."""
    op = looked.op
    C, H, W = op.output_shape
    found = np.zeros((H * W, 4), dtype=np.int32)
    for p in range(H * W):
        boxes = op.support(rows=[(c, *divmod(p, W)) for c in range(C)])
        some = [box for box in boxes if box[0][1] > box[0][0]] or boxes[:1]
        for d in (1, 2):
            first, last = min(box[d][0] for box in some), max(box[d][1] for box in some)
            found[p, d - 1], found[p, d + 1] = first, last - first
    area = found[:, 2].astype(np.int64) * found[:, 3]
    return found, int(area.sum()) * C * op.input_shape[0]


def _quantised(
    F: csr_matrix, looked: Looked, corner: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows in 8 bits, by pixel and channel, the scale of each, and where they begin."""
    C, H, W = looked.op.output_shape
    shape = tuple(looked.op.input_shape)
    q = np.zeros(count, dtype=np.int8)
    scale = np.zeros((H * W, C), dtype=np.float32)
    offset = np.zeros(H * W, dtype=np.int32)
    place = 0
    for p, (top, left, height, width) in enumerate(corner.tolist()):
        offset[p] = place
        rows = F[[c * H * W + p for c in range(C)]].toarray().reshape(C, *shape)
        inside = rows[:, :, top : top + height, left : left + width].reshape(C, -1)
        scale[p] = np.abs(inside).max(1, initial=0)
        unit = np.where(scale[p] > 0, scale[p], 1)[:, None] / 127
        q[place : place + inside.size] = np.rint(inside / unit).reshape(-1)
        place += inside.size
    return q, scale, offset


def _reaches(
    looked: Looked, kind: str, matrix: csr_matrix, share: float, within: float
) -> tuple[np.ndarray, np.ndarray]:
    """Radius and share away of the field of every pixel: all channels at once, then each alone."""
    op = looked.op
    probed, answered = op.output_shape, op.input_shape
    if kind == "projective":
        probed, answered = answered, probed
    channels, pixels = probed[0], probed[1] * probed[2]
    radius = np.zeros((1 + channels, pixels), dtype=np.float32)
    away = np.zeros_like(radius)
    for first in range(0, pixels, _TOGETHER):
        some = np.arange(first, min(first + _TOGETHER, pixels))
        rows = [matrix[c * pixels + some].toarray() for c in range(channels)]
        at = torch.from_numpy(some)[:, None, None]
        far = distances(op, kind, (at // probed[2], at % probed[2]))
        for n, values in enumerate([sum(rows), *rows]):
            energy = torch.from_numpy(np.asarray(values)).reshape(-1, *answered).double()
            found = reach(energy.square().sum(1), far, share, within)
            radius[n, some], away[n, some] = (v.numpy() for v in found)
    return radius, away
