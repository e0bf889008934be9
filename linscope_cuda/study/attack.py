"""FGSM: the picture that a classifier mistakes, with the ledgers of the scores before and after."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..capture.model import settings
from ..frozen.interpreter import LinearInterpreter
from ..rules.policy import Policy
from .ledger import Ledger, ledger

TOP = 5


@dataclass(frozen=True, eq=False)
class Attack:
    """One input and what the classifier makes of it.

    `x` is (1, *input_shape), x0 moved by `epsilon` or less in every entry; `top` are the positions
    of its best scores, at most five, `scores` their values; `ledger` splits two scores, that of
    top[0] and that of the label attacked.

    >>> ls.fgsm(model, x0, [0.01])[1].top[0]    # the best label of the moved x0
    """

    epsilon: float
    x: Tensor
    top: list[int]
    scores: list[float]
    ledger: Ledger


def fgsm(
    model: nn.Module,
    x0: Tensor,
    epsilons: Iterable[float],
    *,
    label: int | None = None,
    bounds: tuple[float, float] | None = None,
    policy: str | Policy = "paper",
    check: bool = True,
) -> list[Attack]:
    """x0 itself, then x0 + epsilon * sign(gradient of the loss) for each epsilon (the fast gradient
    sign method), each with its best scores and their ledgers.

    x0 is (1, *input_shape), `epsilons` are in its units; the loss is the cross-entropy of the
    model's scores (1, classes) with `label`, None: the best score's. `bounds` are the least and the
    largest value of an input: the moved one is clamped to them. `check` as of `LinearInterpreter`,
    for x0. ValueError for a negative epsilon, a label out of range, a model that gives no scores,
    and as `LinearInterpreter`.

    >>> before, after = ls.fgsm(model, x0, [0.01])
    >>> before.top[0], after.top[0], after.ledger.values[:, 0]
    """
    sizes = [float(epsilon) for epsilon in epsilons]
    if any(not 0 <= size < float("inf") for size in sizes):
        raise ValueError(f"fgsm wants epsilons of 0 or more, was given {sizes}")
    op = LinearInterpreter(model, x0, policy, check=check)
    if len(op.output_shape) != 1:
        raise ValueError(f"fgsm wants a model that gives (1, classes), not {op.output_shape}")
    label = int(op.output.argmax()) if label is None else label
    if not 0 <= label < op.shape[0]:
        raise ValueError(f"fgsm wants a label of 0 ... {op.shape[0] - 1}, was given {label}")
    step = _sign(op, label)
    found = [_attack(op, 0.0, label)]
    for size in sizes:
        x = op.x0 + size * step
        x = x if bounds is None else x.clamp(*bounds)
        found.append(_attack(LinearInterpreter(model, x, policy, check=False), size, label))
    return found


def _sign(op: LinearInterpreter, label: int) -> Tensor:
    with torch.enable_grad(), settings(op.device, op.network.compiled):
        x = op.x0.clone().requires_grad_()
        scores = op.network(x.clone())  # a network may write into its input
        loss = F.cross_entropy(scores, torch.tensor([label], device=op.device))
        return torch.autograd.grad(loss, x)[0].sign()


def _attack(op: LinearInterpreter, epsilon: float, label: int) -> Attack:
    best = op.output[0].topk(min(TOP, op.shape[0]))
    top: Sequence[int] = best.indices.tolist()
    return Attack(epsilon, op.x0, list(top), best.values.tolist(), ledger(op, [top[0], label]))
