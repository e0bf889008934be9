"""What a classifier's explanations are worth: over photos, beside baselines and controls."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .attributions import (
    OURS,
    Evidence,
    area,
    blank,
    blurred,
    cascade,
    curve,
    map_of,
    shuffled,
    stages,
    weighted,
)
from .ledger import ledger
from .survey import parts_of

POINTS = 21
SHARES = [i / (POINTS - 1) for i in range(POINTS)]
CASES = {
    "the network": "its best label",
    "another label": "one drawn at random",
    "blank picture": "the photo's mean colour",
    "shuffled weights": "each tensor's numbers in another order",
}
_MOST_STAGES = 8
_CASCADED = 5  # photos: each takes a freeze for each stage

Progress = Callable[[float], object]


@dataclass(eq=False)
class Controls:
    """By method: `deletion` and `insertion` curves, (photos, POINTS); `alike`, how like the map of
    a network with its last `counts` modules shuffled is to that of the network, (photos, stages).
    By case: `parts` (photos, entries), each entry's share |part| / sum |parts| of a score, with the
    entries' `names`.
    """

    methods: Sequence[str]
    counts: list[int]
    modules: int
    deletion: dict[str, list[Tensor]] = field(default_factory=dict)
    insertion: dict[str, list[Tensor]] = field(default_factory=dict)
    alike: dict[str, list[Tensor]] = field(default_factory=dict)
    parts: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    @property
    def photos(self) -> int:
        return len(next(iter(self.deletion.values()), []))

    def areas(self, which: str, method: str) -> Tensor:
        """The area under each photo's curve, (photos,): `which` is "deletion" or "insertion"."""
        return area(torch.stack(getattr(self, which)[method]), SHARES)

    def better(self, which: str, method: str, than: str) -> tuple[float, float]:
        """By how much a method's area is better than another's (smaller for deletion, larger for
        insertion): the mean over photos, and the standard error of that mean.
        """
        sign = -1 if which == "deletion" else 1
        apart = sign * (self.areas(which, method) - self.areas(which, than))
        error = apart.std().item() / math.sqrt(len(apart)) if len(apart) > 1 else math.nan
        return apart.mean().item(), error

    def entries(self) -> list[str]:
        """Names of all entries of ledgers, in the order of the network's calls."""
        return list(dict.fromkeys(n for found in self.parts.values() for p in found for n in p))


def controls(
    model: nn.Module,
    inputs: Sequence[Tensor],
    methods: Sequence[str] = OURS,
    *,
    policy: str = "paper",
    seed: int = 0,
    cascaded: int = _CASCADED,
    patch: int = 8,
    progress: Progress = lambda share: None,
) -> Controls:
    """Controls over the best labels of photos, each (1, C, H, W).

    Curves exchange patches of so many pixels. The first `cascaded` photos are asked again with
    shuffled weights, which takes a freeze for each stage. `progress` is told the share that is
    done.

    controls(model, [x0], ["row times input", "random"]).areas("deletion", "random")
    """
    names = weighted(model)
    counts = stages(len(names), _MOST_STAGES)
    found = Controls(methods, counts, len(names))
    generator = torch.Generator().manual_seed(seed)
    other = shuffled(model, names, seed)
    for i, x0 in enumerate(inputs):
        progress(i / len(inputs))
        with torch.no_grad():
            y = model(x0)[0]
        label = int(y.argmax())
        evidence = Evidence(model, x0, label, policy, generator)
        empty, soft = blank(x0), blurred(x0)
        maps = {method: map_of(method, evidence) for method in methods}
        for method, drawn in maps.items():
            for which, ends in (("deletion", (x0, empty)), ("insertion", (soft, x0))):
                values = curve(model, label, *ends, drawn, SHARES, patch)
                getattr(found, which).setdefault(method, []).append(values)
        if i < cascaded:
            steps = list(cascade(evidence, maps, counts))
            for method in methods:
                values = torch.tensor([step[method] for step in steps], dtype=torch.float64)
                found.alike.setdefault(method, []).append(values)
        stranger = int(torch.randint(len(y) - 1, (), generator=generator))
        stranger += stranger >= label
        with torch.no_grad():
            others_best = int(other(x0)[0].argmax())
        for case, asked in (
            ("the network", evidence),
            ("another label", evidence),
            ("blank picture", Evidence(model, empty.contiguous(), label, policy)),
            ("shuffled weights", Evidence(other, x0, others_best, policy)),
        ):
            of = stranger if case == "another label" else asked.label
            found.parts.setdefault(case, []).append(_parts(asked, of))
    return found


def _parts(evidence: Evidence, label: int) -> dict[str, float]:
    parts = parts_of(ledger(evidence.op, [label]))
    total = math.fsum(map(abs, parts.values())) or 1.0
    return {name: abs(value) / total for name, value in parts.items()}
