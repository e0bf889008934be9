"""What adds to a classifier's scores, as answers: rows, columns, discussions, votes, the ledger."""

from __future__ import annotations

import numpy as np
import torch

from ..study.close_up import robust_scale
from ..study.errors import BadInput
from ..study.ledger import ledger as ledger_of
from ..study.survey import readable
from ..study.votes import pixel_discussion, pixel_parts, poll
from .asked import Asked
from .library import Library, Looked
from .message import Message

UNSEEN = -1  # instead of a label, where nothing that a pixel contributes is above 0


def _classifier(asked: Asked, library: Library) -> tuple[Looked, int]:
    looked = library.looked(asked.subject)
    if not looked.is_classifier:
        raise BadInput("labels want a classifier, and this network makes a picture")
    best = int(looked.op.output.argmax())
    return looked, asked.whole("label", 0, looked.op.shape[0] - 1, best)


def label(asked: Asked, library: Library) -> Message:
    """The row of F for a score, its discussion, or one entry's part of it, over the picture."""
    looked, output = _classifier(asked, library)
    show, entry = (
        asked.choice("show", ("row", "discussion", "part")),
        asked.message.header.get("part"),
    )
    op = looked.op
    with looked.lock:
        if show == "row":
            values, line = op.rows([output])[0], f"op.rows([{output}])[0]"
        elif show == "discussion":
            values = pixel_discussion(op, [output])[0]
            line = f"ls.pixel_discussion(op, [{output}])[0]"
        else:
            try:
                values = pixel_parts(op, output, entry)
            except ValueError as error:
                raise BadInput(str(error)) from error
            line = f"pixel_parts(op, {output}, {entry!r})"
        score = op.output[0, output].item()
    imported = "from linscope_cuda.study.votes import pixel_parts\n" if show == "part" else ""
    header = {
        "label": output,
        "show": show,
        "part": entry,
        "name": looked.class_name(output),
        "score": score,
        "scale": robust_scale(values.cpu().double().mean(0)),
        "python": f"{looked.python}{imported}values = {line}\n",
    }
    return Message(header, {"values": values.cpu().numpy().astype(np.float32)})


def column(asked: Asked, library: Library) -> Message:
    """What a pixel of the input adds to each score, for each unit of one colour of it or of all."""
    looked, _ = _classifier(asked, library)
    op, pixel = looked.op, asked.pixel()
    colours, *extents = op.input_shape
    if not all(0 <= p < n for p, n in zip(pixel, extents, strict=True)):
        raise BadInput(
            f"pixel {pixel[0]},{pixel[1]} lies outside the {extents[0]} x {extents[1]} input"
        )
    probed = list(range(colours))
    if asked.message.header.get("channel") is not None:
        probed = [asked.whole("channel", 0, colours - 1)]
    probe = torch.zeros_like(op.x0)
    probe[0, probed, pixel[0], pixel[1]] = 1  # one pass, however many colours
    with looked.lock:
        values = op.filter(probe)[0]
    header = {
        "pixel": list(pixel),
        "python": f"{looked.python}column = op.columns({[(c, *pixel) for c in probed]}).sum(0)\n",
    }
    return Message(header, {"values": values.cpu().numpy().astype(np.float32)})


def ledger(asked: Asked, library: Library) -> Message:
    """A score as the sum of what the input and every layer add."""
    looked, output = _classifier(asked, library)
    with looked.lock:
        found = ledger_of(looked.op, [output])  # pyright: ignore[reportArgumentType]
    header = {
        "label": output,
        "name": looked.class_name(output),
        "names": found.names,
        "readable": [readable(name) for name in found.names],
        "input": found.input[0].item(),
        "values": found.values[:, 0].tolist(),
        "total": found.total[0].item(),
        "score": looked.op.output[0, output].item(),
        "python": f"{looked.python}found = ls.ledger(op, [{output}])\n"
        "names, added, of_input = found.names, found.values[:, 0], found.input[0]\n",
    }
    return Message(header)


def votes(asked: Asked, library: Library) -> Message:
    """The label, of the best or of all, that each pixel votes for."""
    looked, _ = _classifier(asked, library)
    count = asked.whole("candidates", 1, looked.op.shape[0], min(10, looked.op.shape[0]))
    op = looked.own_copy
    order = op.output[0].argsort(descending=True)[:count].tolist()
    won, most = poll(op, order, progress=lambda share: asked.progress(share, "voting"))
    won = torch.where(most == 0, UNSEEN, won).cpu()
    counts = won[won != UNSEEN].bincount(minlength=op.shape[0])
    popular = counts.argsort(descending=True, stable=True)[:12].tolist()
    header = {
        "candidates": count,
        "pixels": won.numel(),
        "unseen": int((won == UNSEEN).sum()),
        "popular": [
            {"label": k, "name": looked.class_name(k), "votes": int(counts[k])}
            for k in popular
            if counts[k]
        ],
        "python": f"{looked.python}"
        f"best = op.output[0].argsort(descending=True)[:{count}].tolist()\n"
        "votes = ls.pixel_votes(op, best)\n",
    }
    return Message(header, {"votes": won.numpy().astype(np.int32)})
