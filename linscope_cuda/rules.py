"""How each nonlinear torch function is frozen: the table that the patcher and the tape look
functions up in.

A rule knows two things of a call: its scope on a doubled batch, with the decision taken, and the
frozen function that applies a recorded decision. Both get the call's own arguments. What is neither
here nor in linear.py is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import ops
from .reference import is_channels_last

Decision = dict[str, Any]


class UnscopedOperation(NotImplementedError):
    """A network used a function that is neither linear nor has a rule to freeze it by."""


class Rule(ABC):
    """How one torch function is frozen. `args` are those of the function that it is registered for.

    `inplace_at` is the position of the function's `inplace` argument, if it has one.
    """

    inplace_at: int | None = None

    @abstractmethod
    def scope(self, references: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Decision]:
        """y of the doubled batch (`references` samples, then their probes), and the decision taken.

        The decision is a dict of tensors whose first dimension is `references`, and of JSON values.
        """

    @abstractmethod
    def frozen(self, decision: Decision, affine: bool, *args: Any, **kwargs: Any) -> Tensor:
        """A x + c with a recorded decision, or A x alone where not `affine`."""


class Relu(Rule):
    """Equation 2 for ReLU."""

    inplace_at = 1

    def scope(self, references, input, inplace=False):
        return self._scope(references, input, 0.0)

    def frozen(self, decision, affine, input, inplace=False):
        return ops.relu_frozen(input, decision["open"], 0.0, decision["channels_last"])

    @staticmethod
    def _scope(references, input, negative_slope):
        last = is_channels_last(input)
        y, bits = ops.relu_scope(input, references, negative_slope, last)
        return y, {"open": bits, "channels_last": last}


class LeakyRelu(Relu):
    inplace_at = 2

    def scope(self, references, input, negative_slope=0.01, inplace=False):
        return self._scope(references, input, negative_slope)

    def frozen(self, decision, affine, input, negative_slope=0.01, inplace=False):
        return ops.relu_frozen(input, decision["open"], negative_slope, decision["channels_last"])


class PRelu(Relu):
    """ReLU plus, where it is closed, the learned slope of each channel."""

    inplace_at = None

    def scope(self, references, input, weight):
        _, decision = self._scope(references, input, 0.0)
        return self.frozen(decision, True, input, weight), decision

    def frozen(self, decision, affine, input, weight):
        bits, last = decision["open"], decision["channels_last"]
        per_channel = weight if weight.numel() == 1 else weight.view(-1, *[1] * (input.dim() - 2))
        closed = ops.relu_frozen(input, ~bits, 0.0, last)
        return ops.relu_frozen(input, bits, 0.0, last) + per_channel * closed


class Clamp(Rule):
    """ReLU6, hardtanh and clamp; an absent bound is infinite."""

    def __init__(self, bounds: Callable[..., tuple], inplace_at: int | None = None):
        self.bounds = bounds
        self.inplace_at = inplace_at

    def _bounds(self, args, kwargs):
        low, high = self.bounds(*args, **kwargs)
        if isinstance(low, Tensor) or isinstance(high, Tensor):
            raise UnscopedOperation("clamp with tensors as bounds has no rule")
        return -torch.inf if low is None else low, torch.inf if high is None else high

    def scope(self, references, input, *args, **kwargs):
        last = is_channels_last(input)
        y, pieces = ops.clamp_scope(input, references, *self._bounds(args, kwargs), last)
        return y, {"pieces": pieces, "channels_last": last}

    def frozen(self, decision, affine, input, *args, **kwargs):
        bounds = self._bounds(args, kwargs) if affine else (0.0, 0.0)
        return ops.clamp_frozen(input, decision["pieces"], *bounds, decision["channels_last"])


class Gate(Rule):
    """Smooth switches: sigmoid, tanh, silu, gelu."""

    def __init__(self, kind: Callable[..., str], inplace_at: int | None = None):
        self.kind = kind
        self.inplace_at = inplace_at

    def scope(self, references, input, *args, **kwargs):
        y, gate = ops.gate_scope(input, references, self.kind(*args, **kwargs))
        return y, {"gate": gate}

    def frozen(self, decision, affine, input, *args, **kwargs):
        shift = ops.gate_shift(self.kind(*args, **kwargs)) if affine else 0.0
        return ops.gate_frozen(input, decision["gate"], shift)


class MaxPool2d(Rule):
    """The reference's winners, read in every probe."""

    def scope(
        self,
        references,
        input,
        kernel_size,
        stride=None,
        padding=0,
        dilation=1,
        ceil_mode=False,
        return_indices=False,
    ):
        if return_indices:
            raise UnscopedOperation("max_pool2d with return_indices has no rule")
        y, winners = ops.max_pool2d_scope(
            input, references, kernel_size, stride, padding, dilation, ceil_mode
        )
        return y, {"winners": winners}

    def frozen(
        self,
        decision,
        affine,
        input,
        kernel_size,
        stride=None,
        padding=0,
        dilation=1,
        ceil_mode=False,
        return_indices=False,
    ):
        return ops.max_pool2d_frozen(
            input, decision["winners"], kernel_size, stride, padding, dilation
        )


class InstanceNorm(Rule):
    """The reference's mean and deviation; with running statistics it is affine already."""

    def scope(
        self,
        references,
        input,
        running_mean=None,
        running_var=None,
        weight=None,
        bias=None,
        use_input_stats=True,
        momentum=0.1,
        eps=1e-5,
    ):
        if not use_input_stats:
            decision: Decision = {}
            return self.frozen(
                decision, True, input, running_mean, running_var, weight, bias, False, 0.0, eps
            ), decision
        y, mean, rstd = ops.instance_norm_scope(input, references, weight, bias, eps)
        return y, {"mean": mean, "rstd": rstd}

    def frozen(
        self,
        decision,
        affine,
        input,
        running_mean=None,
        running_var=None,
        weight=None,
        bias=None,
        use_input_stats=True,
        momentum=0.1,
        eps=1e-5,
    ):
        mean, rstd = decision.get("mean"), decision.get("rstd")
        if mean is None or rstd is None:
            assert running_mean is not None and running_var is not None
            mean, rstd = running_mean[None], (running_var[None] + eps).rsqrt()
        scale = rstd if weight is None else rstd * weight.to(rstd.dtype)
        if not affine:
            return ops.instance_norm_frozen(input, None, scale, None)
        shift = None if bias is None else bias.to(rstd.dtype).expand_as(rstd)
        return ops.instance_norm_frozen(input, mean, scale, shift)


def _hardtanh_bounds(min_val=-1.0, max_val=1.0, inplace=False):
    return min_val, max_val


def _relu6_bounds(inplace=False):
    return 0.0, 6.0


def _clamp_bounds(min=None, max=None):
    return min, max


def _gelu_kind(approximate="none"):
    return {"none": "gelu", "tanh": "gelu_tanh"}[approximate]


# Every spelling that reaches torch: functional, torch.*, methods, and aten calls.
_TABLE: list[tuple[Rule, list[Any]]] = [
    (Relu(), [F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, torch.ops.aten.relu]),
    (LeakyRelu(), [F.leaky_relu, F.leaky_relu_]),
    (PRelu(), [F.prelu, torch.prelu, Tensor.prelu]),
    (Clamp(_hardtanh_bounds, 3), [F.hardtanh, F.hardtanh_]),
    (Clamp(_relu6_bounds, 1), [F.relu6]),
    (
        Clamp(_clamp_bounds),
        [torch.clamp, torch.clamp_, torch.clip, torch.clip_]
        + [Tensor.clamp, Tensor.clamp_, Tensor.clip, Tensor.clip_],
    ),
    (
        Gate(lambda: "sigmoid"),
        [F.sigmoid, torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_]
        + [torch.special.expit],
    ),
    (Gate(lambda: "tanh"), [F.tanh, torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_]),
    (Gate(lambda inplace=False: "silu", 1), [F.silu]),
    (Gate(_gelu_kind), [F.gelu]),
    (MaxPool2d(), [F.max_pool2d, torch.max_pool2d]),
    (InstanceNorm(), [F.instance_norm]),
]

RULES: dict[Any, Rule] = {function: rule for rule, functions in _TABLE for function in functions}


def register_rule(torch_function: Callable, rule: Rule) -> None:
    """Tells the patcher and the tape how `torch_function` is frozen; a later rule replaces an
    earlier one.

    >>> class Square(ls.Rule):                            # x^2 as the gate x0 times its input
    ...     def scope(self, references, x):
    ...         x0 = x[:references]
    ...         return x * x0.repeat(len(x) // references, 1), {"gate": x0}
    ...     def frozen(self, decision, affine, x):
    ...         return x * decision["gate"].repeat(len(x) // len(decision["gate"]), 1)
    >>> ls.register_rule(torch.square, Square())

    Raises TypeError if `rule` is no Rule.
    """
    if not isinstance(rule, Rule):
        raise TypeError(f"register_rule wants a linscope_cuda.Rule, was given {rule!r}")
    RULES[torch_function] = rule


def writes_in_place(function: Any, rule: Rule, args: Sequence[Any], kwargs: dict) -> bool:
    """Whether the call asked for its result in its input's memory."""
    name = getattr(function, "__name__", "")
    if name.endswith("_") and not name.endswith("__"):
        return True
    at = rule.inplace_at
    return bool(kwargs.get("inplace", at is not None and at < len(args) and args[at]))
