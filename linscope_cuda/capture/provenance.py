"""What a run knows of a tensor: whether it depends on the network's input, whether it was refused,
how many decisions it came through.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..rules import Role, UnscopedOperation

# Marks of different runs differ: a tensor that a module kept from an earlier run is a constant.
_TOKENS = count()


class Marks:
    """A mark on each tensor that depends on the network's input in one run."""

    def __init__(self) -> None:
        self.token = next(_TOKENS)
        self.memory: set[int] = set()  # where what depends on the input has lain
        self.dtypes: set[torch.dtype] = set()

    def count(self, value: Any) -> int:
        """How many tensors of a value have the mark."""
        if isinstance(value, Tensor):
            if getattr(value, "_linscope_run", None) == self.token:
                return 1
            base = value._base  # somebody may have written into what this is a view of
            return int(base is not None and getattr(base, "_linscope_run", None) == self.token)
        if isinstance(value, (tuple, list)):
            return sum([self.count(v) for v in value if not isinstance(v, int)])
        return 0

    def put(self, value: Any) -> None:
        """Marks what a value has of floating numbers; others are decisions."""
        if isinstance(value, Tensor):
            if value.is_floating_point() or value.is_complex():
                self.dtypes.add(value.dtype)
                if value.layout == torch.strided:
                    self.memory.add(value.untyped_storage()._cdata)
                self.put_on(value)
                if value._base is not None:
                    self.put_on(value._base)
        elif isinstance(value, tuple | list):
            for v in value:
                self.put(v)

    def as_wide(self, given: Tensor, cast: Tensor) -> Tensor:
        """What is cast to fewer digits within a network of float64, as norms are: followed in
        float64. The model's own output has but the fewer.
        """
        if (
            given.dtype != torch.float64
            or not cast.is_floating_point()
            or cast.dtype == given.dtype
        ):
            return cast
        self.dtypes.add(cast.dtype)
        return given.to(cast.device).view_as(cast)

    def of_one_dtype(self, args: tuple) -> tuple:
        """Arguments with those that depend on the input in the dtype of the constants, where that
        has fewer digits.
        """
        kinds = {t.dtype for t in args if isinstance(t, Tensor) and t.is_floating_point()}
        if len(kinds) < 2:
            return args
        narrow = narrowest(kinds)
        return tuple(a.to(narrow) if isinstance(a, Tensor) and self.count(a) else a for a in args)

    def put_on(self, value: Tensor) -> None:
        value._linscope_run = self.token  # pyright: ignore[reportAttributeAccessIssue]


class Refused:
    """Why tensors have no frozen system."""

    def __init__(self) -> None:
        self._reasons = WeakTensorKeyDictionary()

    def __bool__(self) -> bool:
        return len(self._reasons) > 0

    def reason(self, values: Iterable[Any]) -> UnscopedOperation | None:
        """That of the first value that has one."""
        if not self:
            return None
        found = (self._reasons.get(t) for value in values for t in tensors(value))
        return next((reason for reason in found if reason is not None), None)

    def add(self, values: Iterable[Tensor], reason: UnscopedOperation) -> None:
        for value in values:
            self._reasons[value] = reason


class Turns:
    """How many decisions tensors came through since the last layer; those of a gate are endless.

    A sum, or what else is made of several, came through as many as the least of them.
    """

    def __init__(self) -> None:
        self._turns: Any = WeakTensorKeyDictionary()  # of numbers

    def of(self, values: Iterable[Tensor]) -> float:
        return min((self._turns.get(t, 0) for t in values), default=0)

    def after(self, role: Role, values: list[Tensor]) -> float:
        """Those of what a function of that role makes of the values."""
        if role is Role.GATE:
            return math.inf
        if role is Role.PRODUCT and len(values) > 1:
            return 0
        return self.of(values) + (role is not Role.THROUGH)

    def gate(self, first: Tensor, second: Tensor) -> str | None:
        """Which of two factors is the gate, the "first" or the "second"; None if neither is."""
        if first.numel() != second.numel():
            return "first" if first.numel() < second.numel() else "second"
        turns = self.of([first]), self.of([second])
        if turns[0] == turns[1]:
            return None
        return "first" if turns[0] > turns[1] else "second"

    def note(self, made: Any, turns: float) -> None:
        for y in tensors(made):
            if turns or y in self._turns:
                self._turns[y] = turns


def tensors(value: Any) -> Iterator[Tensor]:
    """A tensor, or those of a tuple or list."""
    values = value if isinstance(value, tuple | list) else (value,)
    return (v for v in values if isinstance(v, Tensor))


def narrowest(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    """The dtype of the fewest digits."""
    floating = (d for d in dtypes if d.is_floating_point or d.is_complex)
    return max(floating, key=lambda d: torch.finfo(d).eps)
