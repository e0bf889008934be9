"""Walks away from a photo, in directions with names: how far the frozen network is the network
itself, and what it is worth beyond.

Steps are in grey levels: along a direction of 1 the root mean square change of a pixel's value is
one of 255 grey levels, so that directions can be compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..frozen.interpreter import LinearInterpreter
from ..linalg.probes import gaussian
from ..linalg.svd import svd
from ..zoo.preprocess import Preprocess
from .close_up import detailed_pixel
from .drift import Drift, drift
from .errors import BadInput
from .fields import corresponding
from .photos import MOST_TRIPLETS
from .region import Inexact, Region, exactly
from .system import System
from .tour import SEED, Progress, accuracy

UNITS = 3  # that are named on either side
_LEAST = 1e-5  # grey levels at which curves begin where no flip is known


@dataclass(frozen=True, eq=False)
class Direction:
    """`steps` (1, *input_shape) of one grey level, one, or a draw each; `end` is how many of them
    lead to a second photo. `largest` is what a step changes a pixel's value by at most, in grey
    levels.
    """

    name: str
    steps: list[Tensor]
    largest: float
    end: float | None = None


def grey_levels(preprocess: Preprocess, d: Tensor) -> Tensor:
    """What a direction (1, C, H, W) of a network's input changes of the pixels, in grey levels of
    255.

    grey_levels(system.preprocess, found.V[:1])
    """
    deviation = torch.tensor(preprocess.deviation[: d.shape[1]], dtype=d.dtype, device=d.device)
    return d * deviation[:, None, None] * preprocess.divisor


def directions(
    system: System,
    names: Sequence[str],
    towards: Callable[[str], Tensor],
    draws: int = 4,
    progress: Progress = lambda share, text: None,
) -> list[Direction]:
    """Directions by name: "v1", "v2" ... are eigen-inputs, "fgsm" is the sign of the gradient of a
    classifier's loss, or of the row of F of a pixel in a picture, "noise" is Gaussian, as many
    draws as asked for; any other name is a photo's, whose input `towards` gives.

    BadInput for an eigen-input that there is not, and where a photo is the network's own input.

    directions(system, ["v1", "noise"], lambda name: x1)
    """
    op = system.op
    assert isinstance(op, LinearInterpreter)
    wanted = [int(m[1]) for name in names if (m := re.fullmatch(r"v(\d+)", name))]
    most = min(MOST_TRIPLETS, *op.shape)
    if wrong := [i for i in wanted if not 1 <= i <= most]:
        raise BadInput(f"eigen-inputs are v1 ... v{most}, was given v{wrong[0]}")
    others = {name: towards(name) for name in names if not _known(name)}
    if wanted:
        progress(0.0, f"looking for {max(wanted)} eigen-inputs")
    k = max(wanted, default=0)
    generator = torch.Generator().manual_seed(SEED)
    V = svd(op, k, **accuracy(k), generator=generator, progress=False).V if k else None
    made = []
    for name in names:
        if name == "noise":
            steps = _noise(system, draws)
        elif name == "fgsm":
            steps = [_sign(system)]
        elif name in others:
            steps = [others[name].to(op.x0) - op.x0]
        else:
            assert V is not None
            steps = [V[int(name[1:]) - 1][None].to(op.x0)]
        made.append(_of_one_level(system.preprocess, name, steps, name in others))
    return made


def _known(name: str) -> bool:
    return name in ("noise", "fgsm") or re.fullmatch(r"v\d+", name) is not None


def _of_one_level(preprocess: Preprocess, name: str, steps: list[Tensor], ends: bool) -> Direction:
    sizes = [grey_levels(preprocess, d).square().mean().sqrt().item() for d in steps]
    if not all(sizes):
        what = "the network's own input" if ends else "a direction of zeros"
        raise BadInput(f"{name} is {what}: there is no way to go")
    steps = [d / size for d, size in zip(steps, sizes, strict=True)]
    largest = max(grey_levels(preprocess, d).abs().max().item() for d in steps)
    return Direction(name, steps, largest, sizes[0] if ends else None)


def _noise(system: System, draws: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    x0 = system.op.x0
    levels = grey_levels(system.preprocess, torch.ones_like(x0))
    return [gaussian(x0.shape, generator, x0.device).to(x0) / levels for _ in range(draws)]


def _sign(system: System) -> Tensor:
    op = system.op
    if len(op.output_shape) == 1:
        u = op.output.softmax(-1)
        u[0, op.output.argmax()] -= 1
    else:
        i, j = corresponding(op, detailed_pixel(op.x0[0]), "input")["output"]
        u = torch.zeros_like(op.output)
        u[:, :, i, j] = 1
    levels = grey_levels(system.preprocess, torch.ones_like(op.x0))
    return op.transpose(u).sign() / levels


@dataclass(frozen=True, eq=False)
class Walk:
    """What was found along a direction, for each of its steps: the region, or None for each where
    it could only be measured, for the `reason`, and the drift.
    """

    direction: Direction
    regions: list[Region]
    drifts: list[Drift]
    reason: str | None

    @property
    def first(self) -> tuple[float, float] | None:
        """The mean and deviation of t*, in grey levels, where it is exact."""
        return None if self.reason else moments(torch.tensor([r.high for r in self.regions]))

    @property
    def seen(self) -> tuple[float, float]:
        """The last t up to which no step was seen to flip a decision, and the first at which one
        was.
        """
        ts, flipped = self.drifts[0].ts, self.flipped.any(0)
        at = int(flipped.int().argmax()) if flipped.any() else len(ts)
        return (
            ts[at - 1].item() if at else 0.0,
            ts[at].item() if at < len(ts) else math.inf,
        )

    @property
    def flipped(self) -> Tensor:
        """Whether a step flips any decision at each t: (steps, T)."""
        return torch.stack([found.flipped.sum(1) > 0 for found in self.drifts])

    @property
    def relative(self) -> Tensor:
        """The error over the change that is foretold: (steps, T)."""
        return torch.stack([found.relative for found in self.drifts])

    @property
    def share(self) -> Tensor:
        """The share of decisions that flipped: (steps, T)."""
        return torch.stack([found.share for found in self.drifts])

    @property
    def by_entry(self) -> Tensor:
        """That of each entry of the tape: (T, E), the mean of all steps; nan for numbers."""
        mean = torch.stack([found.flipped for found in self.drifts]).double().mean(0)
        return mean / self.drifts[0].decisions

    def reaches(self, relative: float) -> float:
        """The t at which the mean relative error reaches that, between those that were tried as a
        straight line of logarithms; 0 if it is that large at the first, inf if it never is.
        """
        ts, mean = self.drifts[0].ts, self.relative.mean(0)
        above = (mean >= relative).nonzero().flatten().tolist()
        if not above:
            return math.inf
        at = above[0]
        if not at:
            return 0.0
        if not mean[at - 1] > 0:
            return ts[at].item()
        (a, b), (t, u) = mean[at - 1 : at + 1].log().tolist(), ts[at - 1 : at + 1].log().tolist()
        return math.exp(t + (math.log(relative) - a) / (b - a) * (u - t))


def moments(values: Tensor) -> tuple[float, float]:
    """Mean and deviation, the latter 0 of one value."""
    values = values.double()
    return values.mean().item(), values.std().item() if len(values) > 1 else 0.0


def walks(
    system: System,
    ways: Sequence[Direction],
    points: int = 12,
    most: float = 64.0,
    progress: Progress = lambda share, text: None,
) -> list[Walk]:
    """Each direction walked: its regions, then `points` evaluations from below the least t* up to
    `most` grey levels, evenly on a logarithmic scale.

    walks(system, directions(system, ["v1"], photo_input))[0].first
    """
    op = system.op
    assert isinstance(op, LinearInterpreter)
    regions: list[list[Region]] = [[] for _ in ways]
    reason = None
    for way, found in zip(ways, regions, strict=True):
        for step in way.steps if reason is None else ():
            progress(0.1, f"the first flip along {way.name}")
            try:
                found.append(exactly(op, step, UNITS))
            except Inexact as why:
                reason = str(why)
                break
    firsts = [r.high for found in regions for r in found if 0 < r.high < most]
    ts = torch.logspace(math.log10(_start(firsts, most)), math.log10(most), points)
    every = sum(len(way.steps) for way in ways)
    made, done = [], 0
    for way, found in zip(ways, regions, strict=True):
        drifts = []
        for step in way.steps:

            def told(share: float, name: str = way.name, done: int = done) -> None:
                progress(0.2 + 0.75 * (done + share) / every, f"along {name}")

            drifts.append(drift(op, step, ts, progress=told))
            done += 1
        made.append(Walk(way, found if reason is None else [], drifts, reason))
    return made


def _start(firsts: list[float], most: float) -> float:
    return min(firsts) / 2 if firsts else min(_LEAST, most / 10)
