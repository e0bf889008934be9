"""The ledger of one score beside FullGrad (Srinivas and Fleuret 2019) on plain autograd."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import linscope_cuda as ls

from .networks import SMALL, SQUEEZENET, VGG19
from .timing import timings

NETWORKS = {"SqueezeNet 1.1, 227x227": SQUEEZENET, "VGG-19, 224x224": VGG19}


def full_grad(model: nn.Module, x0: Tensor, score: int) -> list[Tensor]:
    """The input's part of a score and every bias's, in the order of the layers."""
    results: list[tuple[nn.Module, Tensor]] = []

    def keep(layer: nn.Module, _: object, result: Tensor) -> None:
        results.append((layer, result))

    layers = [m for m in model.modules() if getattr(m, "bias", None) is not None]
    hooks = [m.register_forward_hook(keep) for m in layers]
    try:
        x = x0.clone().requires_grad_()
        y = model(x).flatten(1)[0, score]
    finally:
        for hook in hooks:
            hook.remove()
    grads = torch.autograd.grad(y, [x, *(result for _, result in results)])
    parts = [(x.detach() * grads[0]).sum()]
    for (layer, _), grad in zip(results, grads[1:], strict=True):
        bias: Tensor = layer.bias  # type: ignore[assignment]
        shape = (-1, *[1] * (grad.dim() - 2))
        parts.append((bias.detach().view(shape) * grad).sum())
    return parts


def run(device: torch.device, quick: bool = False) -> list[dict]:
    """A row per network: milliseconds of each, the parts compared first."""
    networks = {k: v for k, v in SMALL.items() if "Squeeze" in k} if quick else NETWORKS
    rows = []
    for name, network in networks.items():
        model, x0 = network.make(device)
        for layer in model.modules():  # FullGrad wants the results as they were
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
        for parameter in model.parameters():
            if parameter.dim() == 1:
                nn.init.normal_(parameter, std=0.1)
        op = ls.LinearInterpreter(model, x0)
        score = int(op.output.flatten().argmax())
        ours, theirs = ls.ledger(op, [score]), full_grad(model, x0, score)
        total = sum(theirs)
        torch.testing.assert_close(total, op.output.flatten()[score], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(theirs[0], ours.input[0].to(theirs[0]), rtol=1e-3, atol=1e-3)
        taken = timings(
            {
                "ledger": lambda op=op, s=score: ls.ledger(op, [s]),
                "with its tape": lambda m=model, x=x0, s=score: ls.ledger(
                    ls.LinearInterpreter(m, x, check=False), [s]
                ),
                "FullGrad": lambda m=model, x=x0, s=score: full_grad(m, x, s),
            },
            rounds=3 if quick else 11,
        )
        rows.append(
            {
                "network": name,
                **{f"{way} ms": 1e3 * t.median for way, t in taken.items()},
                "ledger of FullGrad": taken["ledger"].median / taken["FullGrad"].median,
            }
        )
    return rows
