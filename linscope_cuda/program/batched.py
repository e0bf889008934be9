"""A program of one sample as the program of several, by torch's own batching rules."""

from __future__ import annotations

import torch
from torch import Tensor

from .line import Line
from .tracer import Tracer


@torch.no_grad()
def batched(program: Line, x: Tensor) -> tuple[Line, Tensor]:
    """The program for as many samples as x has, (K, *shape), and its answer to x.

    Samples cannot mix: each is a batch of its own to the program.
    """
    tracer = Tracer()

    def at(label: str, call: int) -> None:
        tracer.label, tracer.call = label, call

    with tracer:
        given = tracer.input(x.clone())
        y = torch.vmap(lambda one: program.run(one, at))(given.unsqueeze(1)).squeeze(1)
    return tracer.line(y), y
