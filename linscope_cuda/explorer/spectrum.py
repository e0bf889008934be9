"""Singular triplets as answers, and how far along one of them the frozen network holds."""

from __future__ import annotations

import numpy as np
import torch

from ..frozen.interpreter import LinearInterpreter
from ..linalg.svd import SVD, Step
from ..linalg.svd import svd as svd_of
from ..study.close_up import triplet_windows
from ..study.errors import BadInput
from ..study.euclidean import norm
from ..study.flips import flips, radius
from ..study.photos import MOST_TRIPLETS
from ..study.region import region
from ..study.tour import SEED, accuracy
from ..zoo.preprocess import rgb
from .asked import Asked, Stopped
from .library import Library, Looked
from .message import Message
from .pixels import as_photo

_DEPARTED = 0.1  # of the change that the frozen network predicts
_ROUNDINGS = 16  # of the output, which near x0 are more than that
_MOST_SCORES = 5


def svd(asked: Asked, library: Library) -> Message:
    """The k largest singular triplets with their error bars. Stopped, those that are done."""
    looked = library.looked(asked.subject)
    k = asked.whole("k", 1, min(MOST_TRIPLETS, *looked.op.shape), 6)
    if k not in looked.spectra:
        found = _solved(looked, k, asked)
        if asked.stop.is_set():
            if not len(found.S):
                raise Stopped
            return _spectrum(looked, found, k)
        looked.spectra[k] = found
    return _spectrum(looked, looked.spectra[k], k)


def _solved(looked: Looked, k: int, asked: Asked) -> SVD:
    def told(step: Step) -> None:
        if asked.stop.is_set():
            raise KeyboardInterrupt  # at which svd returns what is done
        text = f"{step.converged} of {k} triplets, error {step.error:.0e}"
        asked.told(min(step.converged / k, 1), text)

    asked.told(0.0, f"looking for {k} triplets")
    return svd_of(
        looked.own_copy,
        k=k,
        **accuracy(k),
        generator=torch.Generator().manual_seed(SEED),
        progress=False,
        callback=told,
    )


def _spectrum(looked: Looked, found: SVD, k: int) -> Message:
    black, white = looked.system.preprocess.levels()
    flat = found.V.flatten(1).abs().amax(1)
    header = {
        "k": len(found.S),
        "asked": k,
        "sigma": found.S.tolist(),
        "errors": found.errors.tolist(),
        "proven": found.proven.tolist(),
        "clustered": found.clustered.tolist(),
        "converged": found.converged,
        "passes": found.passes,
        "windows": [_windows(looked, found, i) for i in range(len(found.S))],
        # at which one pixel changes from black to white
        "most": ((white - black) / flat).tolist(),
        "python": f"{_svd_lines(looked, k)}"
        "sigma, errors, V, U = found.S, found.errors, found.V, found.U\n",
    }
    arrays = {"V": found.V, "U": found.U}
    return Message(header, {name: t.cpu().numpy().astype(np.float32) for name, t in arrays.items()})


def _svd_lines(looked: Looked, k: int) -> str:
    settings = "".join(f", {name}={value}" for name, value in accuracy(k).items())
    return (
        f"{looked.python}import torch\n\n"
        f"seed = torch.Generator().manual_seed({SEED})\n"
        f"found = ls.svd(op, k={k}{settings}, generator=seed)\n"
    )


def _windows(looked: Looked, found: SVD, i: int) -> list[list[int]] | None:
    """Where a triplet of pictures can be seen: top, left, side in the output and in the input."""
    if looked.is_classifier:
        return None
    windows = triplet_windows(found.U[i].cpu(), found.V[i].cpu())
    return windows and [list(window) for window in windows]


def _triplet(asked: Asked, library: Library) -> tuple[Looked, SVD, int, str]:
    """What is looked at, its triplets, the one that is meant, and the lines that find them."""
    looked = library.looked(asked.subject)
    if not isinstance(looked.op, LinearInterpreter):
        raise BadInput("a frozen network from a file has no real answer to compare with")
    k = asked.whole("k", 1, MOST_TRIPLETS, 6)
    if k not in looked.spectra:
        raise BadInput(f"the {k} largest triplets of this network are not computed yet")
    found = looked.spectra[k]
    return looked, found, asked.whole("triplet", 0, len(found.S) - 1, 0), _svd_lines(looked, k)


def step(asked: Asked, library: Library) -> Message:
    """x0 + t v: the frozen network's answer y + t sigma u, the network's own, and the decisions
    that it takes otherwise.
    """
    looked, found, i, lines = _triplet(asked, library)
    t = asked.number("t", 0.0)
    op, system = looked.op, looked.system
    assert isinstance(op, LinearInterpreter) and t is not None
    with looked.lock:
        x = op.x0 + t * found.V[i : i + 1].to(op.x0)
        frozen = op.output + t * found.S[i] * found.U[i : i + 1]
        moved = flips(op, x)
        change = norm(frozen - op.output)
        header = {
            "triplet": i,
            "t": t,
            "flipped": moved.flipped,
            "decisions": moved.decisions,
            "departure": norm(moved.output - frozen) / change if change else 0.0,
            "python": f"{lines}from linscope_cuda.study.flips import flips\n\n"
            f"x = op.x0 + {t!r} * found.V[{i}]\n"
            f"frozen = op.output + {t!r} * found.S[{i}] * found.U[{i}]\n"
            "real = flips(op, x)  # .output, .flipped of .decisions\n",
        }
        arrays = {"input": as_photo(rgb(x[0].cpu(), system.preprocess))}
        if looked.is_classifier:
            top = op.output[0].topk(min(_MOST_SCORES, op.shape[0])).indices.tolist()
            header["scores"] = [
                {
                    "name": looked.class_name(j),
                    "before": op.output[0, j].item(),
                    "frozen": frozen[0, j].item(),
                    "real": moved.output[0, j].item(),
                }
                for j in top
            ]
        else:
            arrays["frozen"] = as_photo(system.shown(frozen[0].cpu()))
            arrays["real"] = as_photo(system.shown(moved.output[0].cpu()))
    return Message(header, arrays)


def reach(asked: Asked, library: Library) -> Message:
    """How far one can go both ways along a triplet until a first decision flips, and until the
    frozen network's answer is off by a tenth of the change that it predicts.
    """
    looked, found, i, lines = _triplet(asked, library)
    op = looked.own_copy
    assert isinstance(op, LinearInterpreter)
    v, u, sigma = found.V[i : i + 1].to(op.x0), found.U[i : i + 1], found.S[i]
    black, white = looked.system.preprocess.levels()
    most = (white - black) / v.abs().max().item()

    def told(share: float) -> None:
        asked.progress(share / 2, "looking how far it holds")

    def seen(t: float):
        told(1.0)
        return flips(op, op.x0 + t * v)

    rounding = _ROUNDINGS * torch.finfo(op.dtype).eps * norm(op.output)

    def close(t: float) -> bool:
        least = _DEPARTED * t * sigma.item() + rounding
        return all(
            norm(seen(s * t).output - op.output - s * t * sigma * u) <= least for s in (1, -1)
        )

    told(0.0)
    header = {
        "triplet": i,
        "first": min(region(op, v, 1, most=most, progress=told).radius, most),
        "close": radius(close, most, 6),
        "most": most,
        "tenth": _DEPARTED,
        "python": f"{lines}from linscope_cuda.study.flips import flips, radius\n\n"
        f"v, u, gain, most = found.V[{i}], found.U[{i}], found.S[{i}], {most!r}\n"
        "first = min(ls.region(op, v, 1, most=most).radius, most)\n"
        "def off(t): return (flips(op, op.x0 + t * v).output - op.output - t * gain * u).norm()\n"
        f"rounding = {_ROUNDINGS} * torch.finfo(op.dtype).eps * op.output.norm()\n"
        f"def near(t): return max(off(t), off(-t)) <= {_DEPARTED} * t * gain + rounding\n"
        "close = radius(near, most, 6)\n",
    }
    return Message(header)
