"""Losses as outputs, in terms of their parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .entry import UnscopedOperation
from .smooth import Secant


def _reduced(y: Tensor, reduction: str, size_average=None, reduce=None) -> Tensor:
    if size_average is not None or reduce is not None:
        raise UnscopedOperation("size_average and reduce have no rule; say reduction=")
    return {"none": lambda: y, "sum": y.sum, "mean": y.mean}[reduction]()


def _times(y: Tensor, weight: Tensor | None) -> Tensor:
    return y if weight is None else y * weight


def mse_loss(freeze, input, target, *old, reduction="mean", weight=None, **more):
    return _reduced(_times(torch.square(input - target), weight), reduction, *old, **more)


def l1_loss(freeze, input, target, *old, reduction="mean", weight=None, **more):
    return _reduced(_times(torch.abs(input - target), weight), reduction, *old, **more)


def smooth_l1_loss(freeze, input, target, *old, reduction="mean", beta=1.0, **more):
    def of_difference(d: Tensor) -> Tensor:
        return F.smooth_l1_loss(d, torch.zeros_like(d), reduction="none", beta=beta)

    return _reduced(Secant(of_difference)(freeze, input - target), reduction, *old, **more)


def huber_loss(freeze, input, target, reduction="mean", delta=1.0, weight=None):
    def of_difference(d: Tensor) -> Tensor:
        return F.huber_loss(d, torch.zeros_like(d), reduction="none", delta=delta)

    return _reduced(_times(Secant(of_difference)(freeze, input - target), weight), reduction)


def binary_cross_entropy(freeze, input, target, weight=None, *old, reduction="mean", **more):
    logs = torch.log(input).clamp_min(-100), torch.log(1 - input).clamp_min(-100)
    y = -(target * logs[0] + (1 - target) * logs[1])
    return _reduced(_times(y, weight), reduction, *old, **more)


def binary_cross_entropy_with_logits(
    freeze, input, target, weight=None, *old, reduction="mean", pos_weight=None, **more
):
    positive = _times(target * F.logsigmoid(input), pos_weight)
    y = -(positive + (1 - target) * F.logsigmoid(-input))
    return _reduced(_times(y, weight), reduction, *old, **more)


def soft_margin_loss(freeze, input, target, *old, reduction="mean", **more):
    return _reduced(-F.logsigmoid(target * input), reduction, *old, **more)


def margin_ranking_loss(freeze, input1, input2, target, margin=0.0, *old, reduction="mean", **more):
    return _reduced(torch.relu(margin - target * (input1 - input2)), reduction, *old, **more)


def hinge_embedding_loss(freeze, input, target, margin=1.0, *old, reduction="mean", **more):
    y = torch.where(target == 1, input, 0) + torch.where(
        target == -1, torch.relu(margin - input), 0
    )
    return _reduced(y, reduction, *old, **more)


def kl_div(freeze, input, target, *old, reduction="mean", log_target=False, **more):
    share = torch.exp(target) if log_target else target
    known = share * target if log_target else torch.special.xlogy(target, target)
    y = known - share * input
    if reduction == "batchmean":
        return _reduced(y, "sum", *old, **more) / len(input)
    return _reduced(y, reduction, *old, **more)


def nll_loss(freeze, input, target, weight=None, *old, ignore_index=-100, reduction="mean", **more):
    classes = 1 if input.dim() > 1 else 0
    counts = (target != ignore_index).to(input.dtype)
    chosen = torch.where(target == ignore_index, 0, target)
    counts = counts if weight is None else counts * weight[chosen]
    y = -input.gather(classes, chosen.unsqueeze(classes)).squeeze(classes) * counts
    if reduction == "mean":
        return _reduced(y, "sum", *old, **more) / counts.sum()
    return _reduced(y, reduction, *old, **more)


def cross_entropy(
    freeze,
    input,
    target,
    weight=None,
    *old,
    ignore_index=-100,
    reduction="mean",
    label_smoothing=0.0,
    **more,
):
    logs = torch.log_softmax(input, 1 if input.dim() > 1 else 0)
    if label_smoothing:
        raise UnscopedOperation("cross entropy with label smoothing has no rule")
    if not target.is_floating_point():
        given = {"ignore_index": ignore_index, "reduction": reduction, **more}
        return F.nll_loss(logs, target, weight, *old, **given)
    if weight is not None:
        raise UnscopedOperation("cross entropy of weighted probabilities has no rule")
    y = -(logs * target).sum(1 if input.dim() > 1 else 0)
    return _reduced(y, reduction, *old, **more)


LOSSES = {
    getattr(F, rule.__name__): rule
    for rule in (
        *(mse_loss, l1_loss, smooth_l1_loss, huber_loss, binary_cross_entropy),
        *(binary_cross_entropy_with_logits, soft_margin_loss, margin_ranking_loss),
        *(hinge_embedding_loss, kl_div, nll_loss, cross_entropy),
    )
}

# Those with a secant of their own: the others are made of functions that are expanded in turn.
BENT = {F.smooth_l1_loss, F.huber_loss}
