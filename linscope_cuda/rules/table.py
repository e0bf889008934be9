"""The table that runs look functions up in: every spelling that reaches torch, and its rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import attention, norms, pooling, products, smooth
from .entry import Entry, Rule, inplace_position, unfrozen
from .fused import Clamp, Gate, InstanceNorm, LeakyRelu, MaxPool2d, PRelu, Relu
from .linear import out_of_place
from .policy import POLICIES
from .smooth import Decided, Secant
from .taylor import Taylor

RULES: dict[Any, Entry] = {}


def _spellings(*names: str) -> list[Any]:
    """torch.NAME, Tensor.NAME, F.NAME, torch.special.NAME and their in-place twins."""
    homes = (torch, Tensor, F, torch.special)
    every = [getattr(home, n + tail, None) for n in names for home in homes for tail in ("", "_")]
    return [f for f in dict.fromkeys(every) if callable(f)]


def _add(
    functions: Iterable[Any],
    rule: Rule,
    taylor: Rule | None = None,
    gate: bool = False,
    is_derivative: bool = False,
    anywhere: bool = False,
    **variants: Rule,
) -> None:
    given = {policy.replace("_", "-"): r for policy, r in variants.items()}
    for function in functions:
        derivative = taylor or Taylor(out_of_place(function))
        at = inplace_position(function)
        RULES[function] = Entry(rule, derivative, given, is_derivative, anywhere, at, gate)


def _pieces(functions: Iterable[Any], rule: Rule, gate: bool = False) -> None:
    """Functions that the rule cuts as torch's derivative does, also at corners and of ties."""
    _add(functions, rule, gate=gate, is_derivative=True)


def _smooth(function: Callable, *names: str, rule: Rule | None = None, gate: bool = False) -> None:
    """A function of single values: its secant, or a rule that takes the secant's place."""
    literal = Secant(function, literal=True)
    _add(
        _spellings(*names), rule or Secant(function), Taylor(function), gate, paper_literal=literal
    )


# ---- Pieces: a side, a winner, an order ----

_pieces([*_spellings("relu"), torch.ops.aten.relu], Relu())
_pieces(_spellings("leaky_relu"), LeakyRelu())
_pieces(_spellings("prelu"), PRelu())
_pieces(_spellings("hardtanh"), Clamp(lambda min_val=-1.0, max_val=1.0: (min_val, max_val)))
_pieces([F.relu6], Clamp(lambda: (0.0, 6.0)))
_pieces(_spellings("rrelu"), smooth.rrelu)
_pieces(_spellings("threshold"), smooth.threshold)
_pieces(_spellings("hardshrink"), smooth.hardshrink)
_pieces(_spellings("hardsigmoid"), smooth.hardsigmoid, gate=True)
_add(_spellings("softshrink"), smooth.softshrink)
_add([*_spellings("abs", "absolute"), Tensor.__abs__], smooth.absolute)
_add(_spellings("clamp", "clip"), smooth.clamp, anywhere=True)
_add(_spellings("clamp_min"), lambda freeze, x, min: smooth.clamp(freeze, x, min), anywhere=True)
_add(
    _spellings("clamp_max"), lambda freeze, x, max: smooth.clamp(freeze, x, max=max), anywhere=True
)
_add(_spellings("maximum", "fmax"), smooth.maximum, anywhere=True)
_add(_spellings("minimum", "fmin"), smooth.minimum, anywhere=True)
for _name in ("gt", "ge", "lt", "le", "eq", "ne", "greater", "less", "sign", "isnan"):
    _add(
        [f for f in _spellings(_name) if not f.__name__.endswith("_")],
        Decided(getattr(torch, _name)),
        is_derivative=True,
        anywhere=True,
    )
for _name in ("argmax", "argmin", "argsort"):
    _pieces(_spellings(_name), Decided(getattr(torch, _name)))

_pieces([F.max_pool2d, torch.max_pool2d], MaxPool2d())
_pieces([F.max_pool1d, torch.max_pool1d], pooling.max_pool1d)
_pieces([F.max_pool3d, torch.max_pool3d], pooling.max_pool3d)
for _dims in (1, 2, 3):
    _pool = getattr(F, f"adaptive_max_pool{_dims}d")
    _pieces(_spellings(f"adaptive_max_pool{_dims}d"), pooling.AdaptiveMaxPool(_pool, _dims))
for _name, _pairwise in (("max", torch.maximum), ("min", torch.minimum)):
    _selection = pooling.Selection(getattr(torch, _name), pairwise=_pairwise)
    _add(_spellings(_name), _selection, is_derivative=True, anywhere=True)
for _name, _dim_at, _default in (
    ("median", 1, None),
    ("cummax", 1, None),
    ("cummin", 1, None),
    ("sort", 1, -1),
    ("topk", 2, -1),
    ("kthvalue", 2, -1),
):
    _selection = pooling.Selection(getattr(torch, _name), _dim_at, _default)
    _pieces(_spellings(_name), _selection)
_add(_spellings("amax"), pooling.amax)
_add(_spellings("amin"), pooling.amin)
_add(_spellings("nansum"), pooling.nansum, is_derivative=True)

# ---- Smooth functions of single values ----

_smooth(torch.sigmoid, "sigmoid", "expit", rule=Gate(lambda: "sigmoid"), gate=True)
_smooth(torch.tanh, "tanh", rule=Gate(lambda: "tanh"))
_smooth(F.silu, "silu", rule=Gate(lambda: "silu"))
_smooth(
    F.gelu,
    "gelu",
    rule=Gate(lambda approximate="none": {"none": "gelu", "tanh": "gelu_tanh"}[approximate]),
)
_smooth(F.hardswish, "hardswish", rule=smooth.hardswish)
_smooth(F.celu, "celu", rule=smooth.celu)
for _name in ("elu", "selu", "softplus", "mish", "logsigmoid", "softsign"):
    _smooth(getattr(F, _name), _name)
for _name in ("exp", "expm1", "sin", "cos", "tan", "sinh", "cosh", "atan", "asinh", "erf", "log1p"):
    _smooth(getattr(torch, _name), _name)
_smooth(torch.square, "square", rule=products.square)
_smooth(torch.pow, "pow", rule=products.power)
RULES[Tensor.__pow__] = RULES[torch.pow]
_add(_spellings("tanhshrink"), smooth.tanhshrink)
_pieces(_spellings("glu"), smooth.glu)  # made of a product and a sigmoid, which are expanded

# ---- Norms, softmax, attention ----

_add([F.instance_norm, torch.instance_norm], InstanceNorm(), centered=norms.centered_instance_norm)
_add(
    [F.layer_norm, torch.layer_norm],
    norms.LayerNorm(),
    # torch's own forward derivative loses its device on fake tensors
    Taylor(unfrozen(norms.LayerNorm())),
    anywhere=True,
    centered=norms.LayerNorm(centered=True),
)
_add(
    [F.group_norm, torch.group_norm],
    norms.GroupNorm(),
    anywhere=True,
    centered=norms.GroupNorm(centered=True),
)
_add([F.rms_norm, torch.rms_norm], norms.rms_norm, Taylor(unfrozen(norms.rms_norm)), anywhere=True)
_add([F.normalize], norms.normalize)
_add([F.local_response_norm], norms.local_response_norm)
_add([F.lp_pool1d], pooling.lp_pool1d)
_add([F.lp_pool2d], pooling.lp_pool2d)
_add([F.lp_pool3d], pooling.lp_pool3d)
_add(_spellings("softmax"), norms.softmax)
_add([F.softmin], norms.softmin)
_add(_spellings("log_softmax"), norms.log_softmax)
_add(
    [F.scaled_dot_product_attention],
    attention.scaled_dot_product_attention,
    # torch's own has no forward derivative
    Taylor(unfrozen(attention.scaled_dot_product_attention)),
    anywhere=True,
)
_add(
    [F.multi_head_attention_forward],
    attention.MultiHeadAttention(attention.attend),
    # torch's own has its samples second
    attention.MultiHeadAttention(Taylor(attention.attention)),
    anywhere=True,
)

# ---- Products of two activations; with one, they are linear ----

_products = _spellings("mul", "multiply") + [Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__]
_add(_products, products.multiply, anywhere=True)
_quotients = _spellings("div", "divide", "true_divide")
_quotients += [Tensor.__truediv__, Tensor.__itruediv__]
_add(_quotients, products.divide, anywhere=True)
_matmul = products.matrix_product(torch.matmul)
_add([*_spellings("matmul"), Tensor.__matmul__], _matmul, anywhere=True)
_add(_spellings("bmm"), products.matrix_product(torch.bmm), anywhere=True)
_add([torch.einsum], products.einsum, anywhere=True)


def register_rule(torch_function: Callable, rule: Rule, policy: str | None = None) -> None:
    """Tells every run how `torch_function` is frozen; a later rule replaces an earlier one.

    A rule is a function of `freeze` and the call's own arguments. `freeze(decide, x)` is decide(x0)
    for all samples, a tensor or a tuple of tensors with the batch first, recorded on the tape; what
    else the rule does to x must be linear, or have rules. It serves the policy named, or all but
    "taylor", where the function's own derivative is taken.
    TypeError if one of the two cannot be called, ValueError for an unknown policy.

    >>> def sinc(freeze, x):                     # sin(pi x) / (pi x), read as a gate times x
    ...     return x * freeze(lambda x0: torch.sinc(x0) / x0, x)
    >>> ls.register_rule(torch.sinc, sinc)
    """
    for what in (torch_function, rule):
        if not callable(what):
            raise TypeError(f"register_rule wants two functions, was given {what!r}")
    if policy is not None and policy not in POLICIES:
        raise ValueError(f"policy wants one of {', '.join(POLICIES)}, was given {policy!r}")
    old = RULES.get(torch_function)
    if policy is not None and old is not None:
        RULES[torch_function] = replace(old, variants={**old.variants, policy: rule})
        return
    _add([torch_function], rule, taylor=rule if policy == "taylor" else None, anywhere=True)
