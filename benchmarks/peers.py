"""The tape beside what torch offers for the same: passes of the network, torch.func.linearize and
the kept graph of torch.func.vjp.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

import linscope_cuda as ls
from linscope_cuda.zoo import networks as zoo

from .networks import SMALL, Network, chosen, torchvision
from .products import EQUAL, EVERY_WAY, plain
from .timing import Timing, give_back, timings
from .ways import WAYS, System, applies

NETWORKS = EVERY_WAY | {
    "MobileNet v2, 224x224": torchvision("mobilenet_v2", 224),
    "ShuffleNet v2 x0.5, 224x224": torchvision("shufflenet_v2_x0_5", 224),
    "DenseNet-121, 64x64": torchvision("densenet121", 64),
    "ResNet-18, 224x224": torchvision("resnet18", 224),
    "EfficientNet-B0, 224x224": torchvision("efficientnet_b0", 224),
    "PixelShuffle-4 x3, 48x48": Network(lambda: zoo.PixelShuffle4(3), (3, 48, 48)),
}
SMALLER = SMALL | {"ShuffleNet v2 x0.5, 64x64": torchvision("shufflenet_v2_x0_5", 64)}
SECONDS = 6.0  # for F v, for F^T u and for the construction: less than a minute with all else
TAPES = ("tape", "tape of Taylor")
Ways = Mapping[str, Callable[[], object]]
LINEARIZE, VJP = "torch.func.linearize", "torch.func.vjp, kept"


def run(device: torch.device, quick: bool = False, words: str = "") -> list[dict]:
    """A row per network and freeze; products are compared before they are timed."""
    rows = []
    for name, network in chosen(SMALLER if quick else NETWORKS, words).items():
        print(f"benchmarks: {name} beside torch", file=sys.stderr)
        try:
            model, x0 = network.make(device)
        except ModuleNotFoundError as missing:
            print(f"benchmarks: {name} is left out: {missing}", file=sys.stderr)
            continue
        give_back()
        rows += _network(name, model, x0, rounds=1 if quick else 31)
    return rows


def _network(name: str, model: nn.Module, x0: Tensor, rounds: int) -> list[dict]:
    x, u = torch.randn_like(x0), torch.randn_like(plain(model, x0))
    tapes = [way for way in TAPES if applies(way, model)]
    systems = {way: WAYS[way].make(model, x0, 1) for way in (*tapes, LINEARIZE, VJP)}
    differences = {}
    for way in tapes:
        filter, transpose = systems[LINEARIZE], systems[VJP]
        if way != tapes[-1]:  # the paper's freeze is not the Jacobian of this network
            filter = transpose = WAYS["doubled batch"].make(model, x0, 1)
        differences[way] = _difference(systems[way], filter, transpose, x, u)
        assert differences[way] < EQUAL, f"{name}: {way} differs by {differences[way]:.1e}"

    def ways(plainly: Callable[[], object], product: str, probe: Tensor, peer: str) -> Ways:
        names = (*tapes, peer)
        products = {name: partial(getattr(systems[name], product), probe) for name in names}
        return {"plain": plainly, **products}

    forward, both = partial(plain, model, x0), partial(plain, model, x0, u)
    columns: dict[str, Ways] = {
        "F v": ways(forward, "filter", x, LINEARIZE),
        "Fᵀ u": ways(both, "transpose", u, VJP),
        "construction": {"plain": forward}
        | {way: partial(ls.LinearInterpreter, model, x0, WAYS[way].policy) for way in tapes},
    }
    taken = {column: timings(runs, rounds, limit=SECONDS) for column, runs in columns.items()}

    def over(column: str, way: str, peer: str) -> float:
        return taken[column][way].median / taken[column][peer].median

    return [
        {
            "network": name,
            "way": way,
            "forward ms": 1e3 * taken["F v"]["plain"].median,
            "F v / forward": over("F v", way, "plain"),
            "F v / linearize": over("F v", way, LINEARIZE),
            "Fᵀ u / forward and backward": over("Fᵀ u", way, "plain"),
            "Fᵀ u / kept vjp": over("Fᵀ u", way, VJP),
            "construction / forward": over("construction", way, "plain"),
            "differs by": differences[way],
            "spread": _spread([timing for found in taken.values() for timing in found.values()]),
        }
        for way in tapes
    ]


def _difference(ours: System, filter: System, transpose: System, x: Tensor, u: Tensor) -> float:
    """The larger one of F v's and F^T u's, relative to the other system's product."""
    pairs = (
        (ours.filter(x), filter.filter(x)),
        (ours.transpose(u), transpose.transpose(u)),
    )
    return max(float((found - want).norm() / want.norm()) for found, want in pairs)


def _spread(timings: list[Timing]) -> float | None:
    """The largest one, where there were rounds enough."""
    return max((t.spread for t in timings if t.spread is not None), default=None)
