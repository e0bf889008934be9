"""What one entry of the table of operators says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch._ops import OpOverload

from .derivatives import Derivative


@dataclass(frozen=True)
class Operator:
    """All that torch is told of an operator of namespace `linscope`, which has the name of its
    specification; one that ends in _ writes its first argument, and returns nothing.
    """

    reference: Callable
    # Refuses bad arguments before any work; takes all of them, as `fake` does.
    check: Callable[..., None]
    # The results without data.
    fake: Callable
    # What each argument and result is: x samples, d one row per reference, R the number of
    # references, w per channel, anything else a constant.
    arguments: str
    results: str
    # Without one, it is that of the specification.
    derivative: Derivative | None = None
    # In plain torch, for compilers; without one, it stays a single kernel.
    decomposition: Callable | None = None
    # Which dimensions devices may split; without one, none (sharding.py).
    sharding: Literal["samples", "elements"] | None = None

    @property
    def name(self) -> str:
        return self.reference.__name__

    @property
    def in_place(self) -> bool:
        return self.name.endswith("_")

    @property
    def frozen(self) -> bool:
        """Whether it does with each sample what a recorded decision says."""
        return self.arguments[0] == "x" and "R" not in self.arguments and self.results in ("x", "")

    @property
    def overload(self) -> OpOverload:
        return getattr(torch.ops.linscope, self.name).default
