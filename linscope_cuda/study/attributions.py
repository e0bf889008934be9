"""Maps of what in a picture speaks for a label, and how well they foretell what is needed."""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from skimage.filters import gaussian
from torch import Tensor, nn

from ..frozen.interpreter import LinearInterpreter
from ..rules.policy import Policy
from .votes import pixel_discussion

_BATCH = 16
_STEPS = 50  # of integrated gradients, Captum's own number
_BLUR = 1 / 20  # of the shorter side


@dataclass(eq=False)
class Evidence:
    """A classifier and one input (1, C, H, W) of it, asked about one label.

    `generator` draws what a method needs of chance.
    """

    model: nn.Module
    x0: Tensor
    label: int
    policy: str | Policy = "paper"
    generator: torch.Generator | None = None

    @cached_property
    def op(self) -> LinearInterpreter:
        return LinearInterpreter(self.model, self.x0, self.policy, check=False)


def _row_times_input(of: Evidence) -> Tensor:
    return (of.op.rows([of.label]) * of.x0)[0].sum(0)


def _discussion(of: Evidence) -> Tensor:
    return pixel_discussion(of.op, [of.label])[0].sum(0)


def _integrated_gradients(of: Evidence) -> Tensor:
    from captum.attr import IntegratedGradients

    found = IntegratedGradients(of.model).attribute(
        _leaf(of), target=of.label, n_steps=_STEPS, internal_batch_size=_BATCH
    )
    return found[0].sum(0)


def _saliency(of: Evidence) -> Tensor:
    from captum.attr import Saliency

    return Saliency(of.model).attribute(_leaf(of), target=of.label)[0].sum(0)


def _leaf(of: Evidence) -> Tensor:
    return of.x0.clone().requires_grad_()


def _centre(of: Evidence) -> Tensor:
    """Nearness to the centre, where photographers put what they photograph."""
    height, width = of.x0.shape[-2:]
    rows, columns = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in (height, width))
    away = (rows[:, None] / height).square() + (columns / width).square()
    return -away.to(of.x0)


def _random(of: Evidence) -> Tensor:
    drawn = torch.randn(of.x0.shape[-2:], generator=of.generator, dtype=torch.float64)
    return drawn.to(of.x0)


METHODS: dict[str, Callable[[Evidence], Tensor]] = {
    "row times input": _row_times_input,
    "discussion": _discussion,
    "integrated gradients": _integrated_gradients,
    "saliency": _saliency,
    "centre": _centre,
    "random": _random,
}
OURS = ("row times input", "discussion")
OF_CAPTUM = ("integrated gradients", "saliency")


def available() -> list[str]:
    """The methods that can be had: those of Captum only where it is installed."""
    captum = importlib.util.find_spec("captum") is not None
    return [method for method in METHODS if captum or method not in OF_CAPTUM]


def map_of(method: str, evidence: Evidence) -> Tensor:
    """What a method of `METHODS` says of each pixel, (H, W).

    map_of("discussion", Evidence(model, x0, 281))
    """
    return METHODS[method](evidence).detach()


def probability(model: nn.Module, x: Tensor, label: int) -> Tensor:
    """What the classifier gives a label, (B,): the softmax of scores, probabilities themselves.

    probability(model, x0, 281)
    """
    with torch.no_grad():
        y = model(x).double()
    sums = y.sum(1)
    already = (y >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
    return (y if already else y.softmax(1))[:, label]


def blank(x0: Tensor) -> Tensor:
    """The picture's mean colour everywhere."""
    return x0.mean((2, 3), keepdim=True).expand_as(x0)


def blurred(x0: Tensor) -> Tensor:
    """The picture without anything smaller than a tenth of its shorter side."""
    picture = x0[0].permute(1, 2, 0).double().cpu().numpy()
    soft = gaussian(picture, sigma=_BLUR * min(x0.shape[-2:]), channel_axis=-1, mode="nearest")
    return torch.from_numpy(soft).permute(2, 0, 1)[None].to(x0)


def exchanged(
    before: Tensor, after: Tensor, found: Tensor, shares: Sequence[float], patch: int = 1
) -> Tensor:
    """`before` (1, C, H, W) with those shares of its patches, squares of so many pixels, taken from
    `after`, the ones first where the mean of `found` (H, W) is largest: (len(shares), C, H, W).

    exchanged(x0, blank(x0), torch.randn(224, 224), [0.1, 0.5], patch=8)
    """
    height, width = found.shape
    means = F.avg_pool2d(found[None, None], patch, ceil_mode=True)[0, 0]
    rank = means.flatten().argsort(descending=True, stable=True).argsort().reshape(means.shape)
    rank = rank.repeat_interleave(patch, 0).repeat_interleave(patch, 1)[:height, :width]
    counts = torch.tensor([round(share * means.numel()) for share in shares], device=rank.device)
    return torch.where(rank < counts.view(-1, 1, 1, 1), after, before)


def curve(
    model: nn.Module,
    label: int,
    before: Tensor,
    after: Tensor,
    found: Tensor,
    shares: Sequence[float],
    patch: int = 1,
) -> Tensor:
    """The label's probability while `before` becomes `after` in the order of a map: (len(shares),).
    From the picture to a blank it is the deletion curve, from a blurred one to the picture that of
    insertion (Petsiuk et al., 2018).

    curve(model, 281, x0, blank(x0), found, [0, 0.5, 1])
    """
    parts = [shares[i : i + _BATCH] for i in range(0, len(shares), _BATCH)]
    each = (exchanged(before, after, found, part, patch) for part in parts)
    return torch.cat([probability(model, x, label).cpu() for x in each])


def area(values: Tensor, shares: Sequence[float]) -> Tensor:
    """The mean of curves (..., len(shares)) over the shares from the first to the last."""
    places = torch.tensor(shares, dtype=torch.float64)
    return torch.trapezoid(values, places) / (places[-1] - places[0])


def weighted(model: nn.Module) -> list[str]:
    """The modules that have weights of their own, from the last in the model to the first."""
    named = [n for n, m in model.named_modules() if any(True for _ in m.parameters(recurse=False))]
    return named[::-1]


def shuffled(model: nn.Module, names: Sequence[str], seed: int = 0) -> nn.Module:
    """A copy in which each weight tensor of these modules has its numbers in another order.

    shuffled(model, weighted(model)[:3])
    """
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in names:
            for p in model.get_submodule(name).parameters(recurse=False):
                order = torch.randperm(p.numel(), generator=generator).to(p.device)
                p.copy_(p.flatten()[order].reshape(p.shape))
    return model


def stages(count: int, most: int) -> list[int]:
    """How many modules to shuffle, from 1 to all, at most so many numbers, evenly by ratio."""
    if count <= most:
        return list(range(1, count + 1))
    ratio = math.log(count) / (most - 1)
    return sorted({round(math.exp(ratio * i)) for i in range(most)})


def cascade(
    evidence: Evidence, maps: Mapping[str, Tensor], counts: Sequence[int]
) -> Iterator[dict[str, float]]:
    """For each count of modules shuffled from the last on: how alike each method's map is to that
    of the network itself, of `maps`, by Spearman's rank correlation (Adebayo et al., 2018).

    next(cascade(evidence, {"discussion": map_of("discussion", evidence)}, [1]))
    """
    names = weighted(evidence.model)
    for count in counts:
        other = replace(evidence, model=shuffled(evidence.model, names[:count]))
        yield {method: _alike(found, map_of(method, other)) for method, found in maps.items()}


def _alike(a: Tensor, b: Tensor) -> float:
    if a.std() == 0 or b.std() == 0:
        return math.nan
    ranks = (torch.from_numpy(rankdata(t.flatten().cpu().numpy())) for t in (a, b))
    return torch.corrcoef(torch.stack(list(ranks)))[0, 1].item()
