"""What operators ask of their arguments before any work: the questions, from which the check of
every operator is made (table/).

The compiled operators ask the same in csrc/checks.h. These are for all that is not compiled: the
public functions (functions.py), shapes without data, and the plain torch operators where they stand
in. TypeError for a dtype, ValueError for anything else.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def batch(op: str, x: Tensor, references: int) -> None:
    if x.dtype not in _FLOATING:
        raise TypeError(f"{op}: x must be floating point (float16 to float64), not {x.dtype}")
    if x.dim() == 0:
        raise ValueError(f"{op}: x must have at least 1 dimensions, not shape ()")
    if references < 1 or x.shape[0] % references:
        raise ValueError(
            f"{op}: a batch of {x.shape[0]} samples is no multiple of {references} references"
        )
    if "_scope" in op and x.shape[0] == 0:
        raise ValueError(f"{op}: the batch holds no reference, its shape is {tuple(x.shape)}")


def dims(op: str, x: Tensor, least: int, most: float = math.inf) -> None:
    if not least <= x.dim() <= most:
        count = f"at least {least}" if most == math.inf else f"{least}"
        raise ValueError(f"{op}: x must have {count} dimensions, not shape {tuple(x.shape)}")


def order(op: str, x: Tensor, channels_last: bool) -> None:
    if channels_last and x.dim() not in (4, 5):
        raise ValueError(
            f"{op}: channels_last is an order of 4 or 5 dimensions, not of shape {tuple(x.shape)}"
        )


def rows(op: str, name: str, decision: Tensor) -> int:
    """The references of a decision."""
    if decision.dim() == 0:
        raise ValueError(f"{op}: {name} must have a row for each reference, its shape is ()")
    return decision.shape[0]


def beside(
    op: str, x: Tensor, name: str, t: Tensor | None, shape: Sequence[int], dtype: torch.dtype
) -> None:
    """A tensor beside x: on its device, and what x wants."""
    if t is None:
        return
    if t.device != x.device:
        raise ValueError(f"{op}: x is on {x.device}, {name} on {t.device}")
    if t.dtype != dtype:
        raise TypeError(f"{op}: {name} must be {dtype}, not {t.dtype}")
    if t.shape != torch.Size(shape):
        raise ValueError(
            f"{op}: {name} must be {tuple(shape)}: {tuple(t.shape)} does not belong to x of shape "
            f"{tuple(x.shape)}"
        )


def checked(check: Callable, function: Callable) -> Callable:
    """`function` for calls that pass `check`."""

    @functools.wraps(function)
    def call(*args):
        check(*args)
        return function(*args)

    return call
