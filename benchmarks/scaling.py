"""How cost grows: with image size, probes, singular triplets, photos and threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

import linscope_cuda as ls

from .networks import PIXELSHUFFLE, SQUEEZENET, Network
from .timing import timings


def run(device: torch.device, quick: bool = False) -> list[dict]:
    """A row per quantity and value: seconds of the tape, and of plain passes where they compare."""
    rounds = 1 if quick else 7
    return [
        *_rows("pixels of EDSR-baseline", _of_size(quick), device, rounds),
        *_rows("probes to SqueezeNet", _of_probes(quick), device, rounds),
        *_threads(device, rounds, quick),
        *_triplets(device, quick),
        *_photos(device, quick),
    ]


Case = tuple[int, nn.Module, Tensor, int]


def _of_size(quick: bool) -> Iterator[Case]:
    from linscope_cuda.zoo.networks import EDSR

    for side in (16, 24) if quick else (32, 64, 96, 128, 192):
        yield side**2, *Network(EDSR.baseline, (3, side, side)).make(), 1


def _of_probes(quick: bool) -> Iterator[Case]:
    network = Network(SQUEEZENET.build, (3, 67, 67)) if quick else SQUEEZENET
    model, x0 = network.make()
    for probes in (1, 2) if quick else (1, 2, 4, 8, 16, 32):
        yield probes, model, x0, probes


def _rows(what: str, cases: Iterator[Case], device: torch.device, rounds: int) -> list[dict]:
    rows = []
    for value, model, x0, probes in cases:
        model, x0 = model.to(device), x0.to(device)
        op = ls.LinearInterpreter(model, x0, check=False)
        op.max_batch = probes
        x = torch.randn(probes, *op.input_shape).to(x0)
        u = torch.randn(probes, *op.output_shape).to(x0)
        with torch.no_grad():
            taken = timings(
                {
                    "filter": partial(op.filter, x),
                    "transpose": partial(op.transpose, u),
                    "plain": partial(model, x),
                },
                rounds,
                limit=6,
            )
        rows.append(_row(what, value, **{name: timing.median for name, timing in taken.items()}))
    return rows


def _row(what: str, value: float, **seconds: float) -> dict:
    columns = ("filter", "transpose", "plain", "whole")
    return {"what": what, "value": value, **{f"{c} s": seconds.get(c) for c in columns}}


def _threads(device: torch.device, rounds: int, quick: bool) -> list[dict]:
    before, rows = torch.get_num_threads(), []
    try:
        for threads in range(1, (os.cpu_count() or 1) + 1):
            torch.set_num_threads(threads)
            case = next(_of_probes(quick))
            rows += _rows("threads for SqueezeNet", iter([(threads, *case[1:])]), device, rounds)
    finally:
        torch.set_num_threads(before)
    return rows


def _triplets(device: torch.device, quick: bool) -> list[dict]:
    model, x0 = PIXELSHUFFLE.make(device)
    op, rows = ls.LinearInterpreter(model, x0), []
    for k in (1, 2) if quick else (1, 2, 5, 10, 20, 50):
        taken = timings({"svd": lambda k=k: ls.svd(op, k, progress=False)}, 1)
        rows.append(_row("triplets of PixelShuffle-4", k, whole=taken["svd"].median))
    return rows


def _photos(device: torch.device, quick: bool) -> list[dict]:
    model, x0 = next(_of_probes(quick))[1:3]
    model, x0 = model.to(device), x0.to(device)

    def ledgers(count: int) -> None:
        for i in range(count):
            op = ls.LinearInterpreter(model, x0 + 0.01 * i, check=False)
            ls.ledger(op, [0])

    rows = []
    for count in (1, 2) if quick else (1, 4, 16):
        taken = timings({"ledgers": partial(ledgers, count)}, 1)
        rows.append(
            _row("photos through SqueezeNet's ledger", count, whole=taken["ledgers"].median)
        )
    return rows
