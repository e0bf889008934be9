"""Scales of channels, as batch norms leave them, folded into the convolution before or after
them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .line import Line
from .step import Step, Value

aten = torch.ops.aten
linscope = torch.ops.linscope

# What a scale of channels can be moved past, in a linear line.
_BY_CHANNEL = {
    *(linscope.relu_frozen.default, linscope.clamp_frozen.default, linscope.gate_frozen.default),
    linscope.max_pool2d_frozen.default,
}


def folded(line: Line) -> Line:
    """The linear line with a step less for each scale that a convolution can take over: the one
    before it, or the one after it and after frozen ReLUs, where nobody else reads what is between.

    The convolution gets weights of its own: they take memory, and round otherwise.
    """
    return _Folding(line).line


class _Folding:
    def __init__(self, line: Line):
        self.steps: list[Step | None] = list(line.steps)
        self.readers: dict[int, list[int]] = defaultdict(list)  # of values: numbers of steps
        for i, step in enumerate(line.steps):
            for v in step.operands:
                if isinstance(v, Value):
                    self.readers[v.number].append(i)
        self.readers[line.output.number].append(len(line.steps))
        self.makers = {s.output.number: i for i, s in enumerate(line.steps) if s.single}
        scales = [(i, x) for i, step in enumerate(line.steps) if (x := _scaled(step))]
        left = [scale for scale in scales if not self._into_before(*scale)]
        for scale in reversed(left):
            self._into_after(*scale)
        self.line = Line(line.input, [s for s in self.steps if s is not None], line.output)

    def _into_before(self, i: int, x: Value) -> bool:
        before, step = self.makers.get(x.number), self.steps[i]
        if before is None or step is None or len(self.readers[x.number]) != 1:
            return False
        convolution = self.steps[before]
        if convolution is None or not _foldable(convolution, step, given=False):
            return False
        self.steps[before] = None
        self.steps[i] = replace(_times(convolution, step, given=False), outputs=step.outputs)
        self.makers[step.output.number] = i
        return True

    def _into_after(self, i: int, x: Value) -> None:
        step = self.steps[i]
        row = [] if step is None else self._row(step.output)
        if step is None or not row or not _foldable(row[-1][1], step, given=True):
            return
        at, convolution = row[-1]
        self.steps[at] = _times(convolution, step, given=True)
        first, reader = row[0][0], self.steps[row[0][0]]
        assert reader is not None
        self.steps[first] = reader.of(lambda v: x if _is(v, step.output) else v)
        self.readers[x.number] = [first if j == i else j for j in self.readers[x.number]]
        self.steps[i] = None

    def _row(self, v: Value) -> list[tuple[int, Step]]:
        """The steps from the one that reads a value to the first that a scale cannot be moved past,
        if each is the only reader of what is before it.
        """
        row: list[tuple[int, Step]] = []
        while len(self.readers[v.number]) == 1:
            (at,) = self.readers[v.number]
            step = self.steps[at] if at < len(self.steps) else None
            if step is None or not _is(step.args[0], v):
                break
            row.append((at, step))
            if step.function not in _BY_CHANNEL:
                return row
            v = step.output
        return []


def _is(a: Any, v: Value) -> bool:
    return isinstance(a, Value) and a == v


def _scaled(step: Step) -> Value | None:
    """What a step multiplies with a constant for each channel."""
    if step.function is not aten.mul.Tensor or not isinstance(step.args[1], Tensor):
        return None
    x, scale = step.args[:2]
    if not isinstance(x, Value) or x.shape != step.output.shape or len(x.shape) < 3:
        return None
    per_channel = (x.shape[1], *[1] * (len(x.shape) - 2))
    return x if tuple(scale.shape) in (per_channel, (1, *per_channel)) else None


def _foldable(convolution: Step, step: Step, given: bool) -> bool:
    """Whether a convolution can take a scale for each channel that it is given, or gives."""
    if convolution.function is not aten.convolution.default:
        return False
    weight, transposed, groups = (convolution.args[i] for i in (1, 6, 8))
    if not isinstance(weight, Tensor) or step.args[1].dtype != weight.dtype:
        return False
    # The weights of groups have all channels in their first dimension, and some in their second.
    return groups == 1 or transposed == given


def _times(convolution: Step, step: Step, given: bool) -> Step:
    """The convolution of scaled channels, or with its own channels scaled."""
    x, weight, *rest = convolution.args
    shape = [1] * weight.dim()
    shape[0 if convolution.args[6] == given else 1] = -1
    # Rounded once: the product in double.
    scale = step.args[1].double().view(shape)
    scaled = (weight.detach().double() * scale).to(weight.dtype)
    return replace(convolution, args=(x, scaled, *rest))
