"""Whose are a classifier's scores? Ledgers of the best scores over any number of photos."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor, nn

from ..zoo import Network, Preprocess
from .attack import Attack, fgsm
from .ledger import Ledger
from .photos import freezable, scores

INPUT, NORMALISATION = "input", "normalisation"
GREY_LEVELS = (0.0, 255.0)


class FromPixels(nn.Module):
    """A network whose input is raw pixels, 0 ... 255 in its own order of channels: that they are
    normalised is a part of the network, with an entry of its own in ledgers.
    """

    def __init__(self, network: Network):
        super().__init__()
        self.normalisation = _Normalisation(network.preprocess)
        self.network = network.model

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.normalisation(x))


class _Normalisation(nn.Module):
    offset: Tensor
    deviation: Tensor

    def __init__(self, preprocess: Preprocess):
        super().__init__()
        channels = 1 if preprocess.order == "L" else 3
        self.divisor = preprocess.divisor
        for name in ("offset", "deviation"):
            values = torch.tensor(getattr(preprocess, name)[:channels])
            self.register_buffer(name, values.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x / self.divisor - self.offset) / self.deviation


def raw_pixels(network: Network, image: Image.Image) -> Tensor:
    """What `FromPixels(network)` takes: the picture as preprocessed, but for its normalisation."""
    zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    plain = dataclasses.replace(network.preprocess, divisor=1.0, offset=zero, deviation=one)
    return plain(image)


@dataclass(frozen=True)
class Account:
    """A score's parts by name: `input`, that of the raw pixels, `normalisation`, and each layer's;
    they sum to `score`. `error` is the difference, relative.

    Account.of(fgsm(FromPixels(network), pixels, [])[0]).shares()
    """

    top: list[int]
    score: float
    parts: dict[str, float]

    @staticmethod
    def of(attack: Attack) -> Account:
        return Account(attack.top, attack.scores[0], parts_of(attack.ledger))

    @property
    def error(self) -> float:
        """|score - sum of the parts| / |score|."""
        return abs(self.score - math.fsum(self.parts.values())) / abs(self.score)

    def shares(self) -> dict[str, float]:
        """The residual's share of the score by each definition of `DEFINITIONS`."""
        pixels = self.parts[INPUT]
        found = {}
        for kind, filtered in (
            ("normalised", pixels + self.parts.get(NORMALISATION, 0.0)),
            ("raw", pixels),
        ):
            residual = self.score - filtered
            found[f"{kind} r/y"] = residual / self.score
            found[f"{kind} |r|"] = abs(residual) / (abs(residual) + abs(filtered))
        return found


DEFINITIONS = {
    "normalised r/y": "r / y, the input is normalised pixels",
    "normalised |r|": "|r| / (|r| + |F x0|), the input is normalised pixels",
    "raw r/y": "r / y, the input is raw pixels",
    "raw |r|": "|r| / (|r| + |F x0|), the input is raw pixels",
}


def parts_of(ledger: Ledger) -> dict[str, float]:
    """The parts of a ledger's first output, by readable names, the input's first.

    parts_of(ls.ledger(op, [281]))
    """
    parts = {INPUT: ledger.input[0].item()}
    for name, value in zip(ledger.names, ledger.values[:, 0].tolist(), strict=True):
        where = readable(name)
        parts[where] = parts.get(where, 0.0) + value
    return parts


def readable(name: str) -> str:
    """A ledger's entry as a person names it: "features.0 conv2d".

    readable("torch.nn.functional.conv2d in network.features.0")
    """
    function, _, module = name.partition(" in ")
    if module.split(".")[0] == NORMALISATION:
        return NORMALISATION
    return f"{module.removeprefix('network.')} {function.rpartition('.')[2]}".strip()


@dataclass
class Moments:
    """Mean and deviation of numbers that come one by one."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self.squares += step * (value - self.mean)

    @property
    def deviation(self) -> float:
        """Of the sample; 0 for one number."""
        return math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0


@dataclass
class Survey:
    """Accounts summed up photo by photo, in memory that does not grow with their number.

    `entries`: each part divided by its score, which sums to 1; `shares`: the residual's, by
    definition.
    """

    count: int = 0
    entries: dict[str, Moments] = field(default_factory=dict)
    shares: dict[str, Moments] = field(
        default_factory=lambda: {name: Moments() for name in DEFINITIONS}
    )
    error: float = 0.0

    def add(self, account: Account) -> None:
        """Counts one more photo."""
        self.entries = _merged(self.entries, account.parts, self.count)
        for name, moments in self.entries.items():
            moments.add(account.parts.get(name, 0.0) / account.score)
        for name, share in account.shares().items():
            self.shares[name].add(share)
        self.error = max(self.error, account.error)
        self.count += 1

    @property
    def total(self) -> float:
        """The sum of the entries' means: 1, up to rounding."""
        return math.fsum(moments.mean for moments in self.entries.values())


def _merged(old: dict[str, Moments], names: Iterable[str], count: int) -> dict[str, Moments]:
    """With an entry for each name, in the order of the calls; a new one was 0 so far."""
    order = list(old)
    at = 0
    for name in names:
        if name in old:
            at = order.index(name) + 1
        else:
            order.insert(at, name)
            at += 1
    return {name: old.get(name) or Moments(count) for name in order}


def accounts(
    model: FromPixels,
    pixels: Tensor,
    epsilons: Iterable[float] = (),
    *,
    name: str = "the network",
    policy: str = "paper",
    check: bool = True,
) -> list[Account] | None:
    """The account of a photo's best score, and after FGSM by each epsilon in grey levels; None if
    one of these scores is 0.

    BadInput, which calls the network `name`, if it gives no scores, cannot take the picture or
    cannot be frozen.

    accounts(FromPixels(network), raw_pixels(network, image))[0].shares()
    """
    scores(model, pixels, name)
    with freezable(name):
        attacks = fgsm(model, pixels, epsilons, bounds=GREY_LEVELS, policy=policy, check=check)
    if any(attack.scores[0] == 0 for attack in attacks):
        return None
    return [Account.of(attack) for attack in attacks]
