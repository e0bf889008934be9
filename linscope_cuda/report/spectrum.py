"""What singular values say of a network, as numbers and as pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from ..linalg.operator import MatrixFreeOperator
from ..linalg.probes import gaussian, seeded
from ..linalg.svd import SVD, Step
from .pictures import _CHART, _STYLE, BLUE, DPI, GREY, INK, RED, SLATE, _png, _title

_SEED = 1
_COLOURS = (BLUE, RED, SLATE, INK)


@dataclass(frozen=True)
class Spectrum:
    """The energy of an operator, and how its k largest singular values share it.

    `energy` is |F|_F^2, the sum of all sigma^2, and `energy_error` one standard deviation of its
    estimate (0: exact). `shares` (k,) is the energy curve, sum_(i <= j) sigma_i^2 / energy.
    `stable_rank` is energy / sigma_1^2; nan for a zero operator. `effective_rank` is
    exp(-sum p log p) with p = sigma^2 / energy, in the bounds that the unknown values leave: the
    rest of the energy lies in as few values as sigma_k allows, or in all that there are.
    """

    energy: float
    energy_error: float
    shares: list[float]
    stable_rank: float
    effective_rank: tuple[float, float]


def spectrum(
    op: MatrixFreeOperator,
    found: SVD,
    probes: int = 32,
    generator: torch.Generator | None = None,
) -> Spectrum:
    """The spectrum of F from its largest singular triplets and `probes` random products.

    Hutchinson's estimate, |F|_F^2 = E |F z|^2, of F less the triplets found: what is known of it is
    exact. No probes are spent where k is min(N, n). `probes` < 2: ValueError.

        spectrum(op, svd(op, k=8)).stable_rank
    """
    if probes < 2:
        raise ValueError(f"spectrum wants 2 probes or more, was given {probes}")
    S = found.S.double().cpu()
    known, (N, n) = S.square(), op.shape
    rest, error = 0.0, 0.0
    if len(S) < min(N, n):
        # Not svd's seed: its triplets know their own start.
        own = torch.Generator().manual_seed(_SEED)
        z = gaussian((probes, n), own if generator is None else seeded(generator), op.device)
        V = found.V.reshape(len(S), n).double()
        z = z - (z @ V.T) @ V
        with torch.no_grad():
            y = op.filter(z.to(op.dtype).reshape(probes, *op.input_shape))
        norms = y.reshape(probes, N).double().square().sum(1)
        rest = norms.mean().item()
        error = norms.std().item() / math.sqrt(probes)
    energy = known.sum().item() + rest
    largest = known[0].item() if len(S) else 0.0
    return Spectrum(
        energy=energy,
        energy_error=error,
        shares=(known.cumsum(0) / energy).tolist() if energy else [0.0] * len(S),
        stable_rank=energy / largest if largest else math.nan,
        effective_rank=_effective_rank(known, rest, min(N, n) - len(S)),
    )


def _effective_rank(known: torch.Tensor, rest: float, others: int) -> tuple[float, float]:
    energy = known.sum().item() + rest
    if energy == 0:
        return math.nan, math.nan
    shares = known[known > 0] / energy
    entropy = -(shares * shares.log()).sum().item()
    p = rest / energy
    if p == 0 or others == 0:
        return math.exp(entropy), math.exp(entropy)
    # The rest in m equal values has the entropy -p log(p / m); none of them is above sigma_k.
    least = min(max(rest / known[-1].item(), 1.0) if known[-1] > 0 else 1.0, others)
    few, many = (entropy - p * math.log(p / m) for m in (least, others))
    return math.exp(few), math.exp(many)


def energy_curve(found: Spectrum, title: str) -> bytes:
    """The share of the energy in the first j triplets, with the ranks as text, as PNG.

    energy_curve(spectrum(op, svd(op, k=8)), "energy")
    """
    low, high = found.effective_rank
    with rc_context(_STYLE):
        figure = Figure(figsize=(_CHART, 2.7), dpi=DPI)
        axes = figure.add_axes((0.15, 0.18, 0.83, 0.62))
        places = range(1, len(found.shares) + 1)
        axes.plot(places, [100 * share for share in found.shares], color=BLUE, marker=".")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("triplets")
        axes.set_ylabel("% of |F|\u00b2")
        axes.spines[["top", "right"]].set_visible(False)
        text = f"stable rank {_text(found.stable_rank)}, effective rank {_text(low)}"
        text += "" if high - low < 0.05 * high else f" to {_text(high)}"
        figure.text(0.15, 0.84, text, fontsize=8, color=GREY)
        _title(figure, title)
        return _png(figure)


def convergence(runs: Mapping[str, Sequence[Step]], title: str, sequential: bool = False) -> bytes:
    """The error of the triplet being worked on against the passes spent, a line per method, as PNG.

    `runs` holds what `svd`'s callback was given; passes in samples, or, if `sequential`, in
    batches. ValueError where nothing can be drawn.

        steps = []
        svd(op, k=8, callback=steps.append)
        convergence({"lanczos": steps}, "convergence")
    """
    if not runs or not all(runs.values()):
        raise ValueError("convergence wants a step or more of each method, was given none")
    with rc_context(_STYLE):
        figure = Figure(figsize=(_CHART, 2.9), dpi=DPI)
        axes = figure.add_axes((0.18, 0.17, 0.80, 0.69))
        for i, (name, steps) in enumerate(runs.items()):
            spent = [step.sequential if sequential else step.passes for step in steps]
            # Zero has no place on this scale, and what is not finite none at all.
            shown = [(x, s.error) for x, s in zip(spent, steps, strict=True) if 0 < s.error < 1e9]
            xs, ys = zip(*shown, strict=True) if shown else ([], [])
            axes.plot(xs, ys, color=_COLOURS[i % len(_COLOURS)], linewidth=1.0, label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):  # matplotlib's own labels are formulas, see _STYLE
            axis.set_major_formatter(FuncFormatter(_power))
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("network passes, one after another" if sequential else "samples")
        axes.set_ylabel("error / \u03c3\u2081")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
        _title(figure, title)
        return _png(figure)


def _power(value: float, _: int) -> str:
    return f"{value:g}" if value >= 0.01 else f"{value:.0e}"


def _text(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
