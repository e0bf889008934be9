"""What a rule is, and a torch function's entry in the table of rules."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

from torch import Tensor

from .checking import beyond
from .choices import Choice

Rule = Callable[..., Any]  # (freeze, *args, **kwargs) -> y
Decision = dict[str, Any]


class UnscopedOperation(NotImplementedError):
    """A network used a function that is neither linear nor has a rule to freeze it by.

    `waits`: it does not matter as long as the output does not depend on what the function gave.

    >>> try:
    ...     ls.LinearInterpreter(model, x0)
    ... except ls.UnscopedOperation as error:
    ...     print(error)    # the function, the module, and `ls.register_rule`
    """

    def __init__(self, message: str, waits: bool = False):
        super().__init__(message)
        self.waits = waits


class Fused(ABC):
    """A rule with operators of its own for deciding, and for applying what was decided.

    Its operators want `least_dims` dimensions; ones are put before those of an input with fewer.
    """

    least_dims = 1

    @abstractmethod
    def scope(self, references: int, *args: Any, **kwargs: Any) -> tuple[Any, Decision]:
        """y of the doubled batch (`references` samples, then their probes), and the decision taken.

        The decision is a dict of tensors whose first dimension is `references`, and of JSON values.
        """

    @abstractmethod
    def frozen(self, decision: Decision, *args: Any, **kwargs: Any) -> Any:
        """A x + c with a recorded decision, made of frozen operators and linear functions."""

    def fault(self, given: Decision, taken: Decision, *args: Any, **kwargs: Any) -> str | None:
        """What is wrong with a decision of a file, where `taken` is the one taken anew by the same
        call; None if nothing is.

        Names, dtypes and shapes are those of `taken` already. What whole numbers may be is for the
        rule to say; by default, none outside of those taken.
        """
        return beyond(given, taken)

    def choice(
        self, decision: Decision, input: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Choice, Tensor] | None:
        """What kind of decision it is, and what was decided, entry by entry; None, by default, for
        a decision that is a number. Of `input` the shape counts alone.
        """
        return None

    def __call__(self, freeze: Any, *args: Any, **kwargs: Any) -> Any:
        return freeze.apply(self, *args, **kwargs)


def unfrozen(rule: Rule) -> Callable[..., Any]:
    """The function that a rule freezes, put together from the same parts."""
    return partial(rule, lambda decide, *args: decide(*args))


class Role(Enum):
    """What a function's result is to a product with another activation."""

    GATE = "a share, meant to be multiplied with"
    ACTIVATION = "a value that was decided on: the gate beside one that was not"
    THROUGH = "what its input is"
    PRODUCT = "neither, of two activations; of one, as c / x, a value that was decided on"


@dataclass(frozen=True)
class Entry:
    """The rule of a function, and the rules that take its place under some policies.

    `taylor` is the rule under "taylor", made from the derivative of the function itself: no other
    rule is taken there, unless it `is_derivative`: with torch's own choice at corners and ties, or
    made of functions that are expanded in turn.
    `anywhere`: the rule takes the network's input in any of its arguments, not in the first alone.
    `inplace_at` is the position of the function's `inplace` argument, if it has one; `role` is what
    its result is to a product.
    """

    rule: Rule
    taylor: Rule
    variants: dict[str, Rule] = field(default_factory=dict)
    is_derivative: bool = False
    anywhere: bool = False
    inplace_at: int | None = None
    role: Role = Role.THROUGH

    def under(self, policy: str, elsewhere: bool) -> Rule:
        """The rule for a call; `elsewhere`: other arguments than its first depend on the input."""
        rule = self.variants.get(policy, self.rule)
        fits = self.anywhere or not elsewhere
        if policy == "taylor" and policy not in self.variants:
            return rule if self.is_derivative and fits else self.taylor
        if not fits:
            raise UnscopedOperation("its rule is for a first argument that depends on the input")
        return rule

    def without_inplace(self, args: tuple, kwargs: dict) -> tuple[tuple, dict, bool]:
        """The call's arguments without `inplace`, and whether it was asked for."""
        at = self.inplace_at
        if at is None:
            return args, kwargs, False
        if at < len(args):
            return args[:at] + args[at + 1 :], kwargs, bool(args[at])
        inplace = kwargs.get("inplace", False)
        return args, {k: v for k, v in kwargs.items() if k != "inplace"}, inplace


def inplace_position(function: Callable) -> int | None:
    """Where a Python function takes `inplace`; torch's builtins have no such argument."""
    try:
        names = list(inspect.signature(function).parameters)
    except ValueError:
        return None
    return names.index("inplace") if "inplace" in names else None
