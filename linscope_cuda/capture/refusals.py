"""What a linear function may not do in a frozen network; each refusal names the call."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, dtype, nn

from ..rules import UnscopedOperation
from ..rules.linear import OVERWRITING, owner
from .transparent import running_function

if TYPE_CHECKING:
    from .interception import Interception

_VIEWS = {Tensor.view, Tensor.view_as}


def require_kept(run: Interception, func: Any, args: tuple, kwargs: dict) -> None:
    """Of two entries written to one place, one is lost, and torch's derivative has both."""
    at = OVERWRITING.get(func)
    if at is None or at >= len(args) or not run.probes(args[at]):
        return
    source = args[at]
    numbers = torch.arange(1.0, source.numel() + 1, dtype=torch.float64, device=source.device)
    given = [*args[:at], numbers.reshape(source.shape), *args[at + 1 :]]
    if at:
        given[0] = torch.zeros_like(args[0], dtype=torch.float64)
    y = func(*given, **kwargs)
    if not torch.isin(numbers, given[0] if y is None else y).all():
        raise UnscopedOperation(
            f"{run.where(func)} writes more than once to one place: which of the values stays "
            "is not defined"
        )


def require_linear(run: Interception, func: Any, args: tuple, kwargs: dict) -> None:
    if kwargs.get("rounding_mode"):
        raise UnscopedOperation(f"{run.where(func)} rounds: it is not linear")
    if func in _VIEWS and any(isinstance(v, dtype) for v in (*args[1:], *kwargs.values())):
        raise UnscopedOperation(f"{run.where(func)} reads bits as another dtype")
    if kwargs.get("reduce", "add") not in ("add", "sum"):
        raise UnscopedOperation(f"{run.where(func)} with reduce={kwargs['reduce']!r}")
    if _random(func, args, kwargs):
        raise ValueError(f"{run.where(func)} runs in training mode; call model.eval()")


def require_own(run: Interception, func: Any, target: Tensor) -> None:
    """What a run writes into must be its own, not the model's."""
    written = owner(target)
    attributes = (v for m in run.model.modules() for v in vars(m).values())
    states = (
        *run.model.parameters(),
        *run.model.buffers(),
        *(v for v in attributes if isinstance(v, Tensor)),
    )
    if any(written is t or written.data_ptr() == t.data_ptr() for t in states):
        raise UnscopedOperation(f"{run.where(func)} writes into the model's own tensor")


def _random(func: Any, args: tuple, kwargs: dict) -> bool:
    """Whether a functional dropout or batch norm was called in its training mode."""
    name = getattr(func, "__name__", "")
    if "dropout" in name:
        return bool(kwargs.get("training", args[2] if len(args) > 2 else True))
    return name == "batch_norm" and bool(kwargs.get("training", len(args) > 5 and args[5]))


def require_followed(run: Interception, func: Any, results: list[Tensor]) -> None:
    """What depends on the input must be numbers that round no more than others do, and, where
    there is a graph, be part of it.
    """
    if not all(y.is_floating_point() or y.is_complex() for y in results):
        raise UnscopedOperation(f"{run.where(func)} rounds: it is not linear", waits=True)
    if not run.gradients or run.handled > 1 or not results:
        return
    if not any(y.requires_grad for y in results):
        hidden = running_function(sys._getframe(2))
        raise UnscopedOperation(
            f"{run.where(func)} cannot be followed backward: it runs in "
            f"{hidden or 'a block without gradients'}, whose derivative is its own"
        )


def require_no_parameter(run: Interception, func: Any, values: Iterable[Any]) -> None:
    """A Parameter is made out of sight; one of what depends on the input shares its memory."""
    strangers = (v for v in values if isinstance(v, nn.Parameter) and not run.probes(v))
    if any(v.untyped_storage()._cdata in run.marks.memory for v in strangers):
        raise UnscopedOperation(
            f"{run.where(func)} acts on a Parameter made of what depends on the network's "
            "input; use the tensor itself"
        )
