"""A step of a straight line: one function of earlier values and of constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload


@dataclass(frozen=True)
class Value:
    """What a step makes, or the program's input, by its number."""

    number: int
    shape: tuple[int, ...] = field(compare=False)
    dtype: torch.dtype = field(compare=False)
    device: torch.device = field(compare=False)

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"%{self.number}"


@dataclass(frozen=True)
class Step:
    """One function of earlier values and of constants: `outputs` = function(*args, **kwargs).

    `label` is the network's call that it belongs to, as `calls()` names it; `call` its number.
    """

    function: Any
    args: tuple
    kwargs: dict[str, Any]
    outputs: tuple[Value | None, ...]
    label: str = ""
    call: int = -1
    single: bool = True  # whether the function returns one tensor, not a tuple

    def __reduce__(self):
        function = str(self.function) if isinstance(self.function, OpOverload) else self.function
        rest = self.args, self.kwargs, self.outputs, self.label, self.call, self.single
        return _by_name, (function, *rest)

    @property
    def output(self) -> Value:
        """Its value, of a function that has one."""
        return next(v for v in self.outputs if v is not None)

    @cached_property
    def operands(self) -> list[Any]:
        """Values and constant tensors among the arguments, in their order."""
        return leaves((self.args, self.kwargs))

    def of(self, given: Callable[[Any], Any]) -> Step:
        """The step with `given(v)` for each of its operands v; itself, where that changes none."""
        if all(given(v) is v for v in self.operands):
            return self
        args, kwargs = substituted(self.args, given), substituted(self.kwargs, given)
        return Step(self.function, args, kwargs, self.outputs, self.label, self.call, self.single)


def _by_name(function: Any, *rest: Any) -> Step:
    """A step whose function may be an operator's name, as copies of it are made by."""
    if isinstance(function, str):
        function = reduce(getattr, function.split("."), torch.ops)
    return Step(function, *rest)


_LEAF, _SEVERAL = (Value, Tensor), (tuple, list)


def leaves(value: Any) -> list[Any]:
    """Values and tensors within nested arguments."""
    found: list[Any] = []
    _gather(value, found)
    return found


def _gather(value: Any, found: list[Any]) -> None:
    if isinstance(value, _LEAF):
        found.append(value)
    elif isinstance(value, _SEVERAL):
        for v in value:
            _gather(v, found)
    elif isinstance(value, dict):
        for v in value.values():
            _gather(v, found)


def substituted(value: Any, given: Callable[[Any], Any]) -> Any:
    """Nested arguments with `given(v)` for each Value or tensor v."""
    if isinstance(value, _LEAF):
        return given(value)
    if isinstance(value, _SEVERAL):
        return type(value)([substituted(v, given) for v in value])
    if isinstance(value, dict):
        return {k: substituted(v, given) for k, v in value.items()}
    return value
