"""Time of F v and F^T u by every way, beside plain passes.

Plain is what torch itself takes: a forward pass for F v, a forward and a backward pass with frozen
weights for F^T u.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from .networks import EDSR_BASELINE, SMALL, SQUEEZENET, VGG19, Network, chosen, cyclegan, edsr
from .timing import give_back, timings
from .ways import COMPILED, WAYS, System, applies

EVERY_WAY = {
    "SqueezeNet 1.1, 227x227": SQUEEZENET,
    "VGG-19, 224x224": VGG19,
    "EDSR-baseline x2, 96x96": EDSR_BASELINE,
    "CycleGAN-9, 128x128": cyclegan(128),
}
RECORDED = {
    "VGG-19, 224x224": VGG19,
    "CycleGAN-9, 256x256": cyclegan(256),
    "EDSR-baseline x2, 96x96": EDSR_BASELINE,
    "EDSR 32x256 x4, 64x64": edsr(64, 64),
}
RECORDS = ("DFV in memory", "DFV on disk")
PAPER = ("tape", "doubled batch", *RECORDS)
SECONDS = 8.0  # for all ways to one product
# Convolutions of another compiler round x0's signals otherwise, and some decisions near 0 fall
# otherwise in a deep network.
EQUAL = 5e-2


def ways(device: torch.device, quick: bool = False, words: str = "") -> list[dict]:
    """A row per network, number of probes, product and way but DFV. Products are compared first.

    More probes are left out where a product would take long, or be compiled anew: each costs about
    what one costs.
    """
    names = [way for way in WAYS if way not in RECORDS]
    if quick:
        names.remove(COMPILED)  # minutes
        return _measure(chosen(SMALL, words), names, (2,), device, rounds=1)
    return _measure(chosen(EVERY_WAY, words), names, (1, 8), device, longest=4)


def dfv(device: torch.device, quick: bool = False, words: str = "") -> list[dict]:
    """Table 2's comparison as in `ways`: the paper's ways and the tape, more probes."""
    if quick:
        return _measure(chosen(SMALL, words), PAPER, (2,), device, rounds=1)
    return _measure(chosen(RECORDED, words), PAPER, (1, 8, 32), device, longest=12)


def _measure(
    networks: Mapping[str, Network],
    ways: Sequence[str],
    probes: Sequence[int],
    device: torch.device,
    rounds: int = 11,
    longest: float = float("inf"),
) -> list[dict]:
    rows = []
    for name, network in networks.items():
        model, x0 = network.make(device)
        slowest, before = 0.0, 1
        for count in probes:
            if slowest * count / before > longest:
                break
            print(f"benchmarks: {name}, {count} probes", file=sys.stderr)
            now = [way for way in ways if way != COMPILED or count == probes[0]]
            give_back()
            found = _network(name, model, x0, now, count, rounds)
            slowest, before = max(row["ms"] / 1e3 for row in found), count
            rows += found
    return rows


def _network(
    name: str, model: nn.Module, x0: Tensor, ways: Sequence[str], probes: int, rounds: int
) -> list[dict]:
    systems = {way: _made(way, model, x0, probes) for way in ways if applies(way, model)}
    tape = systems["tape"]
    truth = {"paper": tape, "taylor": systems.get("tape of Taylor", tape)}
    with torch.no_grad():
        y = model(x0)
    x, u = (torch.randn(probes, *t.shape[1:]).to(t) for t in (x0, y))
    rows = []
    for product, probe in (("filter", x), ("transpose", u)):
        wanted = {policy: getattr(system, product)(probe) for policy, system in truth.items()}
        candidates = {"plain": partial(plain, model, x, u if product == "transpose" else None)}
        for way, system in systems.items():
            if system is None or product not in WAYS[way].products:
                continue
            run = partial(getattr(system, product), probe)
            want = wanted[WAYS[way].policy]
            error = float((run() - want).norm() / want.norm())
            assert error < EQUAL, f"{name}: {product} by {way} differs by {error:.1e}"
            candidates[way] = run
        candidates["plain"]()
        taken = timings(candidates, rounds, limit=SECONDS, warming=0)  # they all have run
        for way, timing in taken.items():
            rows.append(
                {
                    "network": name,
                    "probes": probes,
                    "product": product,
                    "way": way,
                    "ms": 1e3 * timing.median,
                    "spread": timing.spread,
                    "over plain": timing.median / taken["plain"].median,
                }
            )
    return rows


def _made(way: str, model: nn.Module, x0: Tensor, probes: int) -> System | None:
    try:
        return WAYS[way].make(model, x0, probes)
    except ModuleNotFoundError as missing:
        print(f"benchmarks: {way} is left out: {missing}", file=sys.stderr)
        return None


def plain(model: nn.Module, x: Tensor, u: Tensor | None = None) -> Tensor:
    """A forward pass; with u also a backward one."""
    if u is None:
        with torch.no_grad():
            return model(x)
    probe = x.clone().requires_grad_()
    return torch.autograd.grad(model(probe), probe, u)[0]
