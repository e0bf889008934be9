"""The paper's doubled batch for any network: its torch functions are caught, the model is not
modified.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from .linear import LINEAR, NEUTRAL, Linear
from .rules import RULES, Rule, UnscopedOperation, writes_in_place


def require_frozen(model: nn.Module) -> None:
    """ValueError if a layer mixes the samples of a batch or draws random numbers: training mode."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if norm and (module.training or module.running_mean is None):
            raise ValueError(
                f"{kind} '{name}' normalises with the statistics of its batch, so F is not defined "
                "for one input; call model.eval() (and keep running statistics)"
            )
        dropout = isinstance(module, nn.modules.dropout._DropoutNd)
        if dropout and module.training and module.p > 0:
            raise ValueError(f"{kind} '{name}' is random in training mode; call model.eval()")


def _random(function: Any, args: tuple, kwargs: dict) -> bool:
    """Whether a functional dropout or batch norm was called in its training mode."""
    name = getattr(function, "__name__", "")
    if "dropout" in name:
        return bool(kwargs.get("training", args[2] if len(args) > 2 else True))
    return name == "batch_norm" and bool(kwargs.get("training", len(args) > 5 and args[5]))


# Marks of different runs differ: a tensor that a module kept from an earlier run is a constant.
_TOKENS = count()


class Interception(TorchFunctionMode):
    """Catches every torch function of a network and marks the tensors that depend on its input.

    `on_rule` is called for nonlinear functions with a rule and `on_linear` for linear ones;
    functions of constants (weights, buffers) are left alone.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.token = next(_TOKENS)

    def run(self, x: Tensor) -> Tensor:
        """The model's output for x; TypeError if it is no tensor, UnscopedOperation if it lost its
        way.
        """
        self._mark(x := x.view_as(x))
        with self:
            y = self.model(x)
        if not isinstance(y, Tensor):
            raise TypeError(f"the model must return one tensor, it returned {type(y).__name__}")
        if not self.is_probe(y):
            raise UnscopedOperation(
                "the model's output does not depend on its input through functions that can be "
                "followed (a custom autograd Function, a compiled graph or NumPy stands between)"
            )
        del y._linscope_run  # pyright: ignore[reportAttributeAccessIssue]
        return y

    def is_probe(self, value: Any) -> bool:
        """Whether a tensor depends on the network's input in this run."""
        return getattr(value, "_linscope_run", None) == self.token

    def _mark(self, value: Any) -> None:
        if isinstance(value, Tensor):
            value._linscope_run = self.token  # pyright: ignore[reportAttributeAccessIssue]
        elif isinstance(value, tuple | list):
            for v in value:
                self._mark(v)

    def _probes(self, value: Any) -> int:
        if isinstance(value, Tensor):
            return self.is_probe(value)
        if isinstance(value, tuple | list):
            return sum(self._probes(v) for v in value)
        return 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        probes = [self._probes(a) for a in args]
        total = sum(probes) + sum(self._probes(v) for v in kwargs.values())
        if not total or func in NEUTRAL:
            return func(*args, **kwargs)
        if func in RULES:
            result = self._freeze(RULES[func], func, args, kwargs)
        elif func in LINEAR:
            self._check_linear(LINEAR[func], func, args, kwargs, probes, total)
            result = self.on_linear(LINEAR[func], func, args, kwargs)
        else:
            raise UnscopedOperation(
                f"{self.where(func)} is neither linear nor has a rule that says how to freeze it; "
                "linscope_cuda.register_rule adds one"
            )
        self._mark(result)
        return result

    def _freeze(self, rule: Rule, func: Any, args: tuple, kwargs: dict) -> Tensor:
        try:
            y = self.on_rule(rule, func, args, kwargs)
        except UnscopedOperation as error:
            raise UnscopedOperation(f"{self.where(func)}: {error}") from error
        return args[0].copy_(y) if writes_in_place(func, rule, args, kwargs) else y

    def _check_linear(self, entry, func, args, kwargs, probes, total) -> None:
        first = probes[0] if probes else self._probes(kwargs.get("input"))
        allowed = {"first": total == first, "rest": not first, "one": total == 1, "any": True}
        if not allowed[entry.probes]:
            raise UnscopedOperation(
                f"{self.where(func)} is not linear where more than its {entry.probes} argument "
                "depends on the input"
            )
        if kwargs.get("rounding_mode") or (func in _CASTS and not _stays_floating(args, kwargs)):
            raise UnscopedOperation(f"{self.where(func)} rounds: it is not linear")
        if _random(func, args, kwargs):
            raise ValueError(f"{self.where(func)} runs in training mode; call model.eval()")

    def on_rule(self, rule: Rule, func: Any, args: tuple, kwargs: dict) -> Tensor:
        raise NotImplementedError

    def on_linear(self, entry: Linear, func: Any, args: tuple, kwargs: dict) -> Any:
        return func(*args, **kwargs)

    def where(self, func: Any) -> str:
        """The function's name and the module that called it, for messages and tables."""
        path = self.module_path()
        return f"{function_name(func)}{f' in {path}' if path else ''}"

    def module_path(self) -> str:
        """The innermost module whose forward is running, as named in the model; '' if none is."""
        names = {id(m): n or type(m).__name__ for n, m in self.model.named_modules()}
        frame = sys._getframe(1)
        while frame is not None:
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and id(owner) in names:
                return names[id(owner)]
            frame = frame.f_back
        return ""


_CASTS = {Tensor.to, Tensor.type_as}


def _stays_floating(args: tuple, kwargs: dict) -> bool:
    given = [*args[1:], *kwargs.values()]
    dtypes = [v.dtype if isinstance(v, Tensor) else v for v in given]
    return all(d.is_floating_point for d in dtypes if isinstance(d, torch.dtype))


def function_name(func: Any) -> str:
    """As one writes it: torch.nn.functional.relu."""
    return resolve_name(func) or getattr(func, "__name__", str(func))


class DoubledBatch(Interception):
    """Each scope decides on the first `references` samples and applies the decision to all."""

    def __init__(self, model: nn.Module, references: int):
        super().__init__(model)
        self.references = references

    def on_rule(self, rule, func, args, kwargs):
        return rule.scope(self.references, *args, **without_inplace(kwargs))[0]


def without_inplace(kwargs: dict) -> dict:
    return {k: v for k, v in kwargs.items() if k != "inplace"}


@contextmanager
def patch(model: nn.Module, references: int = 1) -> Iterator[Callable[[Tensor], Tensor]]:
    """The paper's doubled batch, drop-in: `scoped(x)` runs the model with a LinearScope in each
    nonlinear function.

    x is (references + probes, *input_shape), probes a multiple of references; of y, the first
    `references` samples are f(x0) and the others F(x0) x1 + r(x0) (equation 5). Modules, functional
    and in-place calls are caught; the model is not modified. ValueError for a model in training
    mode or a wrong batch; UnscopedOperation for a function that is neither linear nor has a rule.

    >>> with ls.patch(model) as scoped:
    ...     y = scoped(torch.cat([x0, x1]))
    """
    require_frozen(model)
    if references < 1:
        raise ValueError(f"patch wants 1 reference or more, was given {references}")

    def scoped(x: Tensor) -> Tensor:
        if x.dim() < 2 or len(x) < references or len(x) % references:
            raise ValueError(
                f"the doubled batch wants {references} references and a multiple of them as "
                f"probes, was given shape {tuple(x.shape)}"
            )
        return DoubledBatch(model, references).run(x)

    yield scoped
