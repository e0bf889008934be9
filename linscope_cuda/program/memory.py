"""How much memory a run of a line takes, from the lives of its values."""

from __future__ import annotations

import torch

from .calls import WRITING
from .line import Line

aten = torch.ops.aten


def peak_bytes(line: Line) -> int:
    """The most bytes that one run holds at a time of what its steps make; the input and constants
    are not counted, what convolutions lay out anew is.
    """
    lives = line.lives
    sizes = {v.number: v.nbytes for s in line.steps for v in s.outputs if v and lives.owns(v)}
    alive = peak = 0
    for i, step in enumerate(line.steps):
        made = [v for v in step.outputs if v and lives.owns(v)]
        spent = lives.spent(i, step)
        if step.function in WRITING and lives.may_write(i, step):
            over = lives.owner(step.args[0])
            sizes[step.output.number] = sizes.pop(over)
            made = []
        alive += sum(v.nbytes for v in made)
        scratch = 0
        if step.function is aten.convolution.default:
            scratch = sum(v.nbytes for v in (*made, *step.operands))
        peak = max(peak, alive + scratch)
        alive -= sum(sizes.get(n, 0) for n in spent)
    # An answer that is a view of the input is a copy.
    return peak if lives.is_own(line.output) else max(peak, alive + line.output.nbytes)
