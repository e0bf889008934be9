"""Scales of channels, as batch norms leave them, folded into the convolution before them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from .line import Line
from .step import Step, Value

aten = torch.ops.aten


def folded(line: Line) -> Line:
    """The linear line with a step less for each scale that follows a convolution nobody else reads.

    The convolution gets weights of its own: they take memory, and round otherwise.
    """
    readers = Counter(v.number for s in line.steps for v in s.operands() if isinstance(v, Value))
    readers[line.output.number] += 1
    made = {s.output.number: i for i, s in enumerate(line.steps) if s.single}
    steps: list[Step | None] = list(line.steps)
    for i, step in enumerate(line.steps):
        at = _scaled(step)
        before = None if at is None else made.get(at.number)
        if at is None or before is None or readers[at.number] != 1:
            continue
        convolution = steps[before]
        scale = step.args[1]
        if convolution is None or not _foldable(convolution, scale):
            continue
        weight = _times(convolution, scale)
        args = (convolution.args[0], weight, *convolution.args[2:])
        steps[before] = None
        steps[i] = replace(convolution, args=args, outputs=step.outputs)
    return Line(line.input, [s for s in steps if s is not None], line.output)


def _scaled(step: Step) -> Value | None:
    """What a step multiplies with a constant."""
    if step.function is not aten.mul.Tensor or not isinstance(step.args[1], Tensor):
        return None
    return step.args[0] if isinstance(step.args[0], Value) else None


def _foldable(step: Step, scale: Tensor) -> bool:
    """Whether a convolution can take a scale for each of its channels."""
    if step.function is not aten.convolution.default or not isinstance(step.args[1], Tensor):
        return False
    transposed, groups = step.args[6], step.args[8]
    shape = step.output.shape
    per_channel = (shape[1], *[1] * (len(shape) - 2))
    given = tuple(scale.shape)
    fits = given == per_channel or given == (1, *per_channel)
    return fits and scale.dtype == step.args[1].dtype and not (transposed and groups > 1)


def _times(step: Step, scale: Tensor) -> Tensor:
    weight, transposed = step.args[1], step.args[6]
    shape = [1] * weight.dim()
    shape[1 if transposed else 0] = -1
    # Rounded once: the product in double.
    return (weight.detach().double() * scale.double().view(shape)).to(weight.dtype)
