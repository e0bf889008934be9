"""Rows, columns and all of F: in boxes, coloured and in tiles, beside full passes and torch's own
derivatives.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import linscope_cuda as ls
from linscope_cuda.zoo import networks as zoo

from .memory import Meter, in_a_fresh_process
from .networks import Network, edsr
from .products import EQUAL
from .timing import give_back, timings


def dncnn(layers: int = 17, channels: int = 64) -> nn.Module:
    """DnCNN (Zhang et al. 2017), which finds the noise of a grey picture."""
    inner: list[nn.Module] = []
    for _ in range(layers - 2):
        inner += [nn.Conv2d(channels, channels, 3, padding=1, bias=False)]
        inner += [nn.BatchNorm2d(channels), nn.ReLU()]
    head = [nn.Conv2d(1, channels, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*head, *inner, nn.Conv2d(channels, 1, 3, padding=1))


class Case(NamedTuple):
    network: str
    kind: str  # "column" or "row"


NETWORKS = {
    "EDSR-baseline x2, 480x270": Network(zoo.EDSR.baseline, (3, 270, 480)),
    "PixelShuffle-4 x3, 480x270": Network(lambda: zoo.PixelShuffle4(3), (3, 270, 480)),
    "upconv7 x2, 256x256": Network(zoo.UpConv7, (3, 256, 256)),
    "DnCNN-17, 512x512": Network(dncnn, (1, 512, 512)),
    "PixelShuffle-4 x3, 128x128": Network(lambda: zoo.PixelShuffle4(3), (3, 128, 128)),
    "EDSR x4, 480x270": edsr(270, 480),
    # Where the quick run measures.
    "PixelShuffle-4 x3, 24x24": Network(lambda: zoo.PixelShuffle4(3), (3, 24, 24)),
    "DnCNN-5, 24x24": Network(lambda: dncnn(5, 8), (1, 24, 24)),
}
FIELDS = [Case(name, kind) for name in list(NETWORKS)[:4] for kind in ("column", "row")]
MATRICES = ["PixelShuffle-4 x3, 128x128", "PixelShuffle-4 x3, 480x270"]
TILED = "EDSR x4, 480x270"
TILES = 2**30  # bytes that its products may take
SMALL_FIELDS = [Case("PixelShuffle-4 x3, 24x24", "column"), Case("DnCNN-5, 24x24", "row")]
SMALL_MATRICES = ["PixelShuffle-4 x3, 24x24"]

FULL, BOX = "full pass", "op.boxes"
_PIXELS = 4  # of which a peer's time for the whole matrix is told


def run(device: torch.device, quick: bool = False) -> list[dict]:
    """A row per product and way, the results compared first."""
    rows = []
    for case in SMALL_FIELDS if quick else FIELDS:
        print(f"benchmarks: a {case.kind} of {case.network}", file=sys.stderr)
        rows += _field(case, device, 1 if quick else 9)
        give_back()
    for name in SMALL_MATRICES if quick else MATRICES:
        print(f"benchmarks: all of F of {name}", file=sys.stderr)
        rows += _matrix(name, device)
        give_back()
    if not quick:
        print(f"benchmarks: tiles of {TILED}", file=sys.stderr)
        rows += _tiles(device)
    return rows


def _row(
    what: str, way: str, ms: float, than: float | None, mb: float | None, differs: float | None
):
    return {
        "what": what,
        "way": way,
        "ms": ms,
        "times as fast": None if than is None else than / ms,
        "MB at the peak": mb,
        "differs by": differs,
    }


def _interpreter(model: nn.Module, x0: Tensor) -> ls.LinearInterpreter:
    return ls.LinearInterpreter(model, x0, check=False)


def _ways(case: Case, device: torch.device) -> dict[str, Callable[[], Any]]:
    """The first channel of the pixel in the middle, each way."""
    model, x0 = NETWORKS[case.network].make(device)
    op = _interpreter(model, x0)
    shape = op.input_shape if case.kind == "column" else op.output_shape
    place = (0, shape[1] // 2, shape[2] // 2)
    unit = torch.zeros(1, *shape, device=device)
    unit[(0, *place)] = 1
    if case.kind == "column":
        return {
            FULL: partial(op.program.linear, unit),
            BOX: lambda: op.boxes(columns=[place])[0],
            "op.columns": lambda: op.columns([place]),
            "torch.func.jvp": lambda: torch.func.jvp(model, (x0,), (unit,))[1],
        }

    def backward() -> Tensor:
        x = x0.clone().requires_grad_()
        return torch.autograd.grad(model(x)[(0, *place)], x)[0]

    return {
        FULL: partial(op.program.T, unit),
        BOX: lambda: op.boxes(rows=[place])[0],
        "op.rows": lambda: op.rows([place]),
        "torch.autograd": backward,
    }


def _field(case: Case, device: torch.device, rounds: int) -> list[dict]:
    ways = _ways(case, device)
    found = {way: run() for way, run in ways.items()}
    box, values = found[BOX]
    whole = torch.zeros_like(found[FULL])
    whole[(0, *[slice(*ends) for ends in box])] = values
    found[BOX] = whole
    size = found[FULL].abs().max()
    differences = {way: float((y - found[FULL]).abs().max() / size) for way, y in found.items()}
    assert max(differences.values()) < EQUAL, f"{case}: {differences}"
    # What takes a thousandth of the others' time is timed by itself, as often as it is used so.
    brief = [way for way in ways if way.startswith("op.")]
    quick = timings({way: ways.pop(way) for way in brief}, 9 * rounds, limit=6.0, warming=3)
    taken = timings(ways, rounds, limit=20.0) | quick
    full = taken[FULL].median
    return [
        _row(
            f"{case.kind} of {case.network}",
            way,
            1e3 * taken[way].median,
            1e3 * full,
            in_a_fresh_process(field_memory, case, way, str(device)),
            differences[way],
        )
        for way in found
    ]


def field_memory(case: Case, way: str, device: str) -> float:
    """MB at the peak of one product, over what the network and its interpreter hold."""
    run = _ways(case, torch.device(device))[way]
    with torch.no_grad() if way != "torch.autograd" else torch.enable_grad():
        run()
        meter = Meter(torch.device(device))
        before = meter.now()
        run()
        return (meter.peak() - before) / 1e6


def _matrix(name: str, device: torch.device) -> list[dict]:
    """All of F; what takes hours otherwise is told by a few columns, or rows."""
    model, x0 = NETWORKS[name].make(device)
    op = _interpreter(model, x0)
    N, n = op.shape
    what = f"all of F of {name}"
    columns = list(range(0, n, n // _PIXELS))[:_PIXELS]
    units = torch.zeros(_PIXELS, n, device=device)
    units[range(_PIXELS), columns] = 1
    units = units.reshape(-1, *op.input_shape)

    def one_by_one() -> Tensor:
        return torch.cat([op.program.linear(unit) for unit in units.split(1)])

    outputs = torch.eye(N, device=device)[:: N // _PIXELS][:_PIXELS] if N < 2**14 else None
    if outputs is None:
        outputs = torch.zeros(_PIXELS, N, device=device)
        outputs[range(_PIXELS), range(0, N - N % _PIXELS, N // _PIXELS)] = 1
    outputs = outputs.reshape(_PIXELS, 1, *op.output_shape)

    def jacrev() -> Tensor:
        pull = torch.func.vjp(model, x0)[1]
        return torch.func.vmap(lambda u: pull(u)[0])(outputs)

    taken = timings({"column": one_by_one, "jacrev": jacrev}, 3, limit=20.0)
    by_column = 1e3 * taken["column"].median / _PIXELS * n
    by_row = 1e3 * taken["jacrev"].median / _PIXELS * N
    ms, mb, differs = in_a_fresh_process(whole_matrix, name, str(device))
    return [
        _row(what, "op.tosparse()", ms, by_column, mb, differs),
        _row(what, f"column by column, by {_PIXELS} of {n:,}", by_column, by_column, None, None),
        _row(what, f"jacrev in chunks, by {_PIXELS} of {N:,}", by_row, by_column, None, None),
    ]


def whole_matrix(name: str, device: str) -> tuple[float, float, float]:
    """Milliseconds, MB at the peak over what was held before, and how far F x is from the product
    of the network.
    """
    model, x0 = NETWORKS[name].make(device)
    op = _interpreter(model, x0)
    x = torch.randn_like(x0)
    y = op.filter(x).flatten().cpu()
    meter = Meter(torch.device(device))
    before, start = meter.now(), time.perf_counter()
    F = op.tosparse(max_bytes=2**36, progress=False)
    ms, peak = 1e3 * (time.perf_counter() - start), meter.peak()
    found = torch.from_numpy(F @ x.flatten().cpu().numpy())
    return ms, (peak - before) / 1e6, float((found - y).norm() / y.norm())


def _tiles(device: torch.device) -> list[dict]:
    found = {way: in_a_fresh_process(tiled, way, str(device)) for way in ("whole", "tiles")}
    rows = []
    for product in ("filter", "transpose"):
        sign = {"filter": "F v", "transpose": "Fᵀ u"}[product]
        whole, _, wanted = found["whole"][product]
        for way, label in (("whole", FULL), ("tiles", f"max_bytes {TILES:,}")):
            ms, mb, y = found[way][product]
            differs = float((y - wanted).norm() / wanted.norm())
            assert differs < EQUAL, f"{product} in tiles differs by {differs:.1e}"
            rows.append(_row(f"{sign} of {TILED}", label, ms, whole, mb, differs))
    return rows


def tiled(way: str, device: str) -> dict[str, tuple[float, float, Tensor]]:
    """Of both products: milliseconds, MB at the peak over what was held before, and some of the
    answer.
    """
    model, x0 = NETWORKS[TILED].make(device)
    limit = TILES if way == "tiles" else 2**40
    op = ls.LinearInterpreter(model, x0, check=False, fold=False, max_bytes=limit)
    generator = torch.Generator().manual_seed(1)
    made = {}
    for product, shape in (("filter", op.input_shape), ("transpose", op.output_shape)):
        probe = torch.randn(1, *shape, generator=generator).to(device)
        meter = Meter(torch.device(device))
        before, start = meter.now(), time.perf_counter()
        y = getattr(op, product)(probe)
        taken = 1e3 * (time.perf_counter() - start)
        made[product] = taken, (meter.peak() - before) / 1e6, y.flatten()[::97].cpu()
        del y
    return made
