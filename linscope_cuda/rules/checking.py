"""What a decision that comes from a file may say, held against the one that x0 leads to.

Each check gives what is wrong, in words, or None.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

_WHOLE = (torch.uint8, torch.int16, torch.int32, torch.int64)


def mismatch(given: dict[str, Any], taken: dict[str, Any], any_width: bool = False) -> str | None:
    """How a decision differs in kind from the one taken anew.

    Names, dtypes and shapes are the same, or with `any_width` whole numbers of any size; numbers
    are finite where all of those taken are. What is no tensor is equal, but for truth values: those
    say how the tensors beside them lie in memory.
    """
    if given.keys() != taken.keys():
        return f"it holds {_names(given)} where {_names(taken)} are wanted"
    for name, want in taken.items():
        have = given[name]
        if isinstance(want, Tensor) != isinstance(have, Tensor):
            return f"{name} is {'a' if isinstance(have, Tensor) else 'no'} tensor"
        if not isinstance(want, Tensor):
            same = (
                type(have) is bool if type(want) is bool else json.dumps(have) == json.dumps(want)
            )
            wrong = None if same else f"{name} is {have!r:.60}, not like {want!r}"
        else:
            wrong = _tensor_mismatch(name, have, want, any_width)
        if wrong:
            return wrong
    return None


def _tensor_mismatch(name: str, have: Tensor, want: Tensor, any_width: bool) -> str | None:
    resized = any_width and have.dtype in _WHOLE and want.dtype in _WHOLE
    if have.shape != want.shape or (have.dtype != want.dtype and not resized):
        kinds = (f"{t.dtype} of shape {tuple(t.shape)}" for t in (have, want))
        return f"{name} is " + ", not ".join(kinds)
    if have.is_floating_point() and not have.isfinite().all() and want.isfinite().all():
        return f"{name} holds NaN or infinity"
    return None


def beyond(given: dict[str, Any], taken: dict[str, Any]) -> str | None:
    """Whole numbers outside of those taken anew: what else they may be is not known here."""
    for name, want in taken.items():
        if isinstance(want, Tensor) and want.dtype in _WHOLE and want.numel():
            wrong = outside(name, given[name], int(want.min()), int(want.max()))
            if wrong:
                return wrong
    return None


def outside(name: str, numbers: Tensor, low: int, high: int) -> str | None:
    """Whether there are numbers below `low` or above `high`."""
    if numbers.numel() == 0:
        return None
    least, most = int(numbers.min()), int(numbers.max())
    if low <= least and most <= high:
        return None
    return f"{name} holds {least if least < low else most}, outside of {low} to {high}"


def _names(decision: dict[str, Any]) -> str:
    return f"{', '.join(sorted(decision))!r:.80}" if decision else "nothing"
