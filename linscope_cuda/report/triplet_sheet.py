"""Eigen-inputs and eigen-outputs of one network or of several on one photo (Fig. 5 and 6)."""

from __future__ import annotations

from collections.abc import Sequence

from ..linalg.svd import SVD
from ..study.close_up import triplet_windows
from ..study.system import System, share_in_words
from .captions import grey, subscript
from .panels import Panel, sheet

_PER_ROW = 4  # more would be too small to read where the sheet is scaled to a page
_HEADS = 2  # columns that the first row of a system begins with


def triplet_sheet(found: Sequence[tuple[System, SVD]], title: str) -> bytes:
    """For each system: x0, y, the residual r, and its triplets with sigma and error bar.

    Residuals of all systems have one scale. Where a triplet is localised, it is shown close up, and
    a frame in x0 says where.

    triplet_sheet([(system, svd(system.op, k=4))], "the cat")
    """
    residuals = [grey(system.op.residual[0].cpu()) for system, _ in found]
    scale = max(r.abs().max().item() for r in residuals)
    rows: list[list[Panel]] = []
    for (system, triplets), residual in zip(found, residuals, strict=True):
        pairs = [_pair(triplets, i) for i in range(len(triplets.S))]
        frames = [
            (pair[0].crop, str(i + 1)) for i, pair in enumerate(pairs) if pair[0].crop is not None
        ]
        op = system.op
        filtered = system.as_shown(op.filter(op.x0)[0].cpu())
        output = system.as_shown(op.output[0].cpu())
        heads: tuple[list[Panel], list[Panel]] = (
            [
                Panel(system.input, system.name, note="input x₀", frames=frames),
                Panel(
                    filtered.picture, "F x₀", note=_lines(filtered.words) or "in the colours of y"
                ),
            ],
            [
                Panel(output.picture, "output y", note=_lines(output.words)),
                Panel(
                    residual,
                    "residual r",
                    "signed",
                    "output, mean over colours",
                    note=share_in_words(system.residual_share),
                    scale=scale,
                ),
            ],
        )
        first = _PER_ROW - _HEADS
        parts = [pairs[:first]]
        parts += [pairs[i : i + _PER_ROW] for i in range(first, len(pairs), _PER_ROW)]
        for i, part in enumerate(parts):
            for end in (0, 1):
                rows.append([*(heads[end] if i == 0 else ()), *(pair[end] for pair in part)])
    return sheet(
        rows,
        title,
        "F v = \u03c3 u with |u| = |v| = 1; eigen-inputs v above their eigen-outputs u.",
    )


def _lines(words: str) -> str:
    return words.replace(", ", "\n")


def _pair(found: SVD, i: int) -> tuple[Panel, Panel]:
    u, v = found.U[i].cpu(), found.V[i].cpu()
    of_output, of_input = triplet_windows(u, v) or (None, None)
    sigma, error = found.S[i].item(), found.errors[i].item()
    note = f"\u03c3{subscript(i + 1)} = {sigma:.5g} ± {error:.1g}"
    note += "" if found.proven[i] else " (estimate)"
    note += ", one of a cluster" if found.clustered[i] else ""
    unit = "entry, mean over colours"
    return (
        Panel(grey(v), f"eigen-input v{subscript(i + 1)}", "signed", unit, crop=of_input),
        Panel(grey(u), f"eigen-output u{subscript(i + 1)}", "signed", unit, note, crop=of_output),
    )
