"""Which freeze a nonlinear function gets: one choice for all, or one per function or module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from torch.overrides import resolve_name

from ..files import fields

POLICIES = ("paper", "paper-literal", "centered", "taylor")
FACTORS = ("first", "second", "half")
PRODUCTS = ("half", "refuse")
_FIELDS = {"default": str, "functions": dict, "modules": dict, "factors": dict, "products": str}


@cache  # torch looks names up slowly
def function_name(func: Any) -> str:
    """As one writes it: torch.nn.functional.relu."""
    return resolve_name(func) or getattr(func, "__name__", str(func))


class Policy:
    """How the nonlinear functions of a network are frozen.

    - "paper": equation 2; smooth functions are the secant through h(0), norms freeze mean and
      deviation, softmax and attention weights are constants.
    - "paper-literal": as "paper", but h(x0) / x0 for every smooth function, infinite at 0.
    - "centered": as "paper", but a norm's mean stays linear and only its deviation is frozen.
    - "taylor": equation 4, the derivative at x0, of every function.

    `functions` maps torch functions or their names, `modules` patterns of module paths ("body.*"),
    to one of these; a module's choice goes before a function's. `factors` maps patterns of module
    paths to "first", "second" or "half": which factor of a product of two activations is frozen
    there, or each for half of it. `products` says what becomes of those of which neither is the
    gate: "half", or "refuse". ValueError for an unknown choice.

    >>> ls.Policy("paper", functions={torch.sigmoid: "taylor"}, modules={"tail.*": "centered"})
    """

    def __init__(
        self,
        default: str = "paper",
        functions: Mapping[Callable | str, str] | None = None,
        modules: Mapping[str, str] | None = None,
        factors: Mapping[str, str] | None = None,
        products: str = "half",
    ):
        self.default = default
        self.functions = {
            f if isinstance(f, str) else function_name(f): p for f, p in (functions or {}).items()
        }
        self.modules = dict(modules or {})
        self.factors = dict(factors or {})
        self.products = products
        for choice in (default, *self.functions.values(), *self.modules.values()):
            if choice not in POLICIES:
                raise ValueError(f"policy wants one of {', '.join(POLICIES)}, was given {choice!r}")
        for factor in self.factors.values():
            if factor not in FACTORS:
                raise ValueError(f"a factor is one of {', '.join(FACTORS)}, was given {factor!r}")
        if products not in PRODUCTS:
            raise ValueError(f"products wants one of {', '.join(PRODUCTS)}, was given {products!r}")

    def to_json(self) -> dict[str, Any]:
        """The arguments of an equal policy."""
        return dict(vars(self))

    @staticmethod
    def from_json(given: Any) -> Policy:
        """The policy whose `to_json` that is; ValueError for what is none."""
        return Policy(**fields("policy", given, _FIELDS))

    @property
    def uniform(self) -> bool:
        """Whether every function gets the default."""
        return not self.functions and not self.modules

    def everywhere(self, choice: str) -> bool:
        """Whether every function is frozen by that choice."""
        return {self.default, *self.functions.values(), *self.modules.values()} == {choice}

    def choose(self, function: str, module: str) -> str:
        """The freeze of a function of that name, called in that module."""
        by_function = self.functions.get(function, self.default)
        return _first_match(self.modules, module) or by_function

    def factor(self, module: str) -> str | None:
        """The factor to freeze in that module's products of two activations, if one was named."""
        return _first_match(self.factors, module)

    def __repr__(self) -> str:
        choices = {"functions": self.functions, "modules": self.modules, "factors": self.factors}
        given = "".join(f", {name}={choice}" for name, choice in choices.items() if choice)
        given += f", products={self.products!r}" if self.products != "half" else ""
        return f"Policy({self.default!r}{given})"


def _first_match(patterns: Mapping[str, str], path: str) -> str | None:
    return next((choice for p, choice in patterns.items() if fnmatchcase(path, p)), None)
