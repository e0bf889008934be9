"""The table that runs look functions up in: every spelling that reaches torch, and its rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import attention, norms, pooling, products, recurrent, smooth
from .choices import Discrete
from .entry import Entry, Role, Rule, inplace_position, unfrozen
from .fused import Clamp, Gate, InstanceNorm, LeakyRelu, MaxPool2d, PRelu, Relu
from .linear import out_of_place
from .losses import BENT, LOSSES
from .policy import POLICIES
from .smooth import CHOICES, Decided, Secant
from .taylor import Homogeneous, Reduction, Taylor

RULES: dict[Any, Entry] = {}


def _spellings(*names: str) -> list[Any]:
    """torch.NAME, Tensor.NAME, F.NAME, torch.special.NAME, torch.linalg.NAME and their in-place
    twins.
    """
    homes = (torch, Tensor, F, torch.special, torch.linalg)
    every = [getattr(home, n + tail, None) for n in names for home in homes for tail in ("", "_")]
    return [f for f in dict.fromkeys(every) if callable(f)]


def _add(
    functions: Iterable[Any],
    rule: Rule,
    taylor: Rule | None = None,
    role: Role = Role.THROUGH,
    is_derivative: bool = False,
    anywhere: bool = False,
    **variants: Rule,
) -> None:
    given = {policy.replace("_", "-"): r for policy, r in variants.items()}
    for function in functions:
        derivative = taylor or Taylor(out_of_place(function))
        at = inplace_position(function)
        RULES[function] = Entry(rule, derivative, given, is_derivative, anywhere, at, role)


def _pieces(
    functions: Iterable[Any], rule: Rule, role: Role = Role.THROUGH, anywhere: bool = False
) -> None:
    """Functions that the rule cuts as torch's derivative does, also at corners and of ties, or that
    it makes of others.
    """
    _add(functions, rule, role=role, is_derivative=True, anywhere=anywhere)


def _straight(*names: str) -> None:
    """Functions made of straight pieces, or of a soft choice: their derivative is their freeze."""
    for function in _spellings(*names):
        _add([function], Taylor(out_of_place(function)), anywhere=True)


def _smooth(
    function: Callable,
    *names: str,
    rule: Rule | None = None,
    role: Role = Role.ACTIVATION,
    anywhere: bool = False,
) -> None:
    """A function of single values: its secant, or a rule that takes the secant's place."""
    literal = Secant(function, literal=True)
    secant, derivative = Secant(function), Taylor(function, pointwise=True)
    anywhere = anywhere or rule is None
    _add(
        _spellings(*names), rule or secant, derivative, role, False, anywhere, paper_literal=literal
    )


# ---- Pieces: a side, a winner, an order ----

_pieces([*_spellings("relu"), torch.ops.aten.relu], Relu(), Role.ACTIVATION)
_pieces(_spellings("leaky_relu"), LeakyRelu(), Role.ACTIVATION)
_pieces(_spellings("prelu"), PRelu(), Role.ACTIVATION)
_hardtanh = Clamp(lambda min_val=-1.0, max_val=1.0: (min_val, max_val))
_pieces(_spellings("hardtanh"), _hardtanh, Role.ACTIVATION)
_pieces([F.relu6], Clamp(lambda: (0.0, 6.0)), Role.ACTIVATION)
_pieces(_spellings("rrelu"), smooth.rrelu, Role.ACTIVATION)
_pieces(_spellings("threshold"), smooth.threshold, Role.ACTIVATION)
_pieces(_spellings("hardshrink"), smooth.hardshrink, Role.ACTIVATION)
_pieces(_spellings("hardsigmoid"), smooth.hardsigmoid, Role.GATE)
_add(_spellings("softshrink"), smooth.softshrink, role=Role.ACTIVATION)
_add([*_spellings("abs", "absolute"), Tensor.__abs__], smooth.absolute)
_add(_spellings("clamp", "clip"), smooth.clamp, anywhere=True, role=Role.ACTIVATION)
_add(
    _spellings("clamp_min"),
    lambda freeze, x, min: smooth.clamp(freeze, x, min),
    anywhere=True,
    role=Role.ACTIVATION,
)
_add(
    _spellings("clamp_max"),
    lambda freeze, x, max: smooth.clamp(freeze, x, max=max),
    anywhere=True,
    role=Role.ACTIVATION,
)
_add(_spellings("maximum", "fmax"), smooth.maximum, anywhere=True)
_add(_spellings("minimum", "fmin"), smooth.minimum, anywhere=True)
_add(_spellings("copysign"), smooth.copysign, anywhere=True)
_add(_spellings("nan_to_num"), smooth.nan_to_num)
_straight("frac", "fmod", "remainder", "quantile", "nanquantile", "mode")
_straight("scatter_reduce", "index_reduce", "logsumexp", "logcumsumexp")
_add([torch.segment_reduce, torch._segment_reduce], pooling.segment_reduce, is_derivative=True)
_add([Tensor.__mod__], Taylor(torch.remainder), anywhere=True)
for _name in (
    *("gt", "ge", "lt", "le", "eq", "ne", "greater", "greater_equal", "less", "less_equal"),
    *("not_equal", "sign", "sgn", "isnan", "isinf", "isfinite", "isposinf", "isneginf", "isreal"),
    *("signbit", "isclose", "logical_and", "logical_or", "logical_xor", "logical_not", "any"),
    *("all", "round", "floor", "ceil", "trunc", "fix", "heaviside", "floor_divide"),
    *("bucketize", "searchsorted", "count_nonzero"),
):
    _functions = [f for f in _spellings(_name) if not f.__name__.endswith("_")]
    _decided = Decided(getattr(torch, _name), CHOICES.get(_name, Discrete))
    _add(_functions, _decided, is_derivative=True, anywhere=True)
for _name in ("eq", "ne", "gt", "ge", "lt", "le"):
    RULES[getattr(Tensor, f"__{_name}__")] = RULES[getattr(torch, _name)]
for _method, _function in (
    (Tensor.__floordiv__, torch.floor_divide),
    (Tensor.__rfloordiv__, lambda x, y: torch.floor_divide(y, x)),
):
    _add([_method], Decided(_function, Discrete), is_derivative=True, anywhere=True)
for _name in ("argmax", "argmin", "argsort"):
    _pieces(_spellings(_name), Decided(getattr(torch, _name), Discrete))

_max_pools = {d: getattr(F, f"max_pool{d}d_with_indices") for d in (1, 2, 3)}
_pieces([F.max_pool2d, torch.max_pool2d], MaxPool2d())
for _dims, _pool in _max_pools.items():
    if _dims != 2:
        _functions = [getattr(home, f"max_pool{_dims}d") for home in (F, torch)]
        _pieces(_functions, pooling.MaxPool(_pool, _dims))
    _pieces([_pool], pooling.MaxPool(_pool, _dims, with_indices=True))
    _pool = getattr(F, f"adaptive_max_pool{_dims}d")
    _functions = [*_spellings(f"adaptive_max_pool{_dims}d")]
    _pieces(_functions, pooling.AdaptiveMaxPool(_pool, _dims))
    _functions = [getattr(F, f"adaptive_max_pool{_dims}d_with_indices")]
    _pieces(_functions, pooling.AdaptiveMaxPool(_pool, _dims))
for _name, _pairwise, _rank in (("max", torch.maximum, 1), ("min", torch.minimum, -1)):
    _choice = pooling.ranked(_rank)
    _selection = pooling.Selection(getattr(torch, _name), _choice, pairwise=_pairwise)
    _add(_spellings(_name), _selection, is_derivative=True, anywhere=True)
for _name, _choice, _dim_at, _default in (
    ("median", pooling.ranked(0), 1, None),
    ("nanmedian", pooling.ranked(0), 1, None),
    ("cummax", pooling.unranked, 1, None),
    ("cummin", pooling.unranked, 1, None),
    ("sort", pooling.in_order, 1, -1),
    ("topk", pooling.first_in_order, 2, -1),
    ("kthvalue", pooling.ranked(0), 2, -1),
):
    _selection = pooling.Selection(getattr(torch, _name), _choice, _dim_at, _default)
    _pieces(_spellings(_name), _selection)
_pieces(_spellings("msort"), pooling.msort)
_add(_spellings("amax"), pooling.amax)
_add(_spellings("amin"), pooling.amin)
_add(_spellings("aminmax"), pooling.aminmax)
_pieces(_spellings("nansum"), pooling.nansum)
_pieces(_spellings("nanmean"), pooling.nanmean)

# ---- Smooth functions of single values ----

_smooth(torch.sigmoid, "sigmoid", "expit", rule=Gate(lambda: "sigmoid"), role=Role.GATE)
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
for _home, _names in (
    (torch, "exp expm1 exp2 sin cos tan sinh cosh atan asinh erf erfc log1p sinc asin acos atanh"),
    (torch, "arctan arcsinh arcsin arccos arctanh acosh arccosh sqrt rsqrt reciprocal"),
    (torch, "log log2 log10 logit lgamma digamma erfinv i0 polygamma mvlgamma"),
    (torch.special, "psi gammaln i0e i1 i1e ndtr ndtri log_ndtr entr erfcx zeta"),
):
    for _name in _names.split():
        _smooth(getattr(_home, _name), _name)
_smooth(torch.square, "square", rule=products.square)
_smooth(torch.pow, "pow", rule=products.power, anywhere=True)
_smooth(torch.float_power, "float_power")
RULES[Tensor.__pow__] = RULES[torch.pow]
_add([Tensor.__rpow__], Secant(lambda x, base: torch.pow(base, x)), role=Role.ACTIVATION)
_add(_spellings("tanhshrink"), smooth.tanhshrink)
_pieces(_spellings("glu"), smooth.glu)  # made of a product and a sigmoid, which are expanded
_add(_spellings("angle"), Decided(torch.angle))
# A direction, whatever the size of both.
_direction = smooth.OfTwo(torch.atan2, Decided(torch.atan2))
_add(_spellings("atan2", "arctan2"), _direction, anywhere=True)
_add(_spellings("hypot"), smooth.OfTwo(torch.hypot, Homogeneous(torch.hypot)), anywhere=True)
_add(_spellings("logaddexp"), smooth.OfTwo(torch.logaddexp, smooth.log_add), anywhere=True)
_add(_spellings("logaddexp2"), smooth.OfTwo(torch.logaddexp2, smooth.log2_add), anywhere=True)
_add(_spellings("ldexp"), products.ldexp, anywhere=True)
_add(_spellings("xlogy"), products.xlogy, anywhere=True)
_add(_spellings("xlog1py"), products.xlog1py, anywhere=True)

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
_add(_spellings("renorm"), norms.renorm)
for _function in (torch.norm, Tensor.norm, torch.linalg.norm, torch.linalg.vector_norm):
    _pieces([_function], norms.Norm(_function))
_pieces([torch.linalg.matrix_norm], norms.Norm(torch.linalg.matrix_norm, (-2, -1)))
_add(_spellings("var"), Reduction(torch.var, 2, 0, 2))
_add(_spellings("std"), norms.std)
_add(_spellings("var_mean"), norms.with_mean(torch.var))
_add(_spellings("std_mean"), norms.with_mean(torch.std))
_add(_spellings("cov"), Homogeneous(torch.cov, 2))
_add(_spellings("prod"), Reduction(torch.prod, products.factors, 0, 1))
_add(_spellings("cumprod"), Homogeneous(torch.cumprod, products.factors_so_far))
_add(_spellings("cosine_similarity"), norms.cosine_similarity, anywhere=True)
_add(_spellings("pairwise_distance"), norms.pairwise_distance, anywhere=True)
_add(_spellings("dist"), norms.dist, anywhere=True)
_add(_spellings("cdist"), norms.cdist, anywhere=True)
_pieces(_spellings("pdist"), norms.pdist)
_add([F.local_response_norm], norms.local_response_norm)
_add([F.lp_pool1d], pooling.lp_pool1d)
_add([F.lp_pool2d], pooling.lp_pool2d)
_add([F.lp_pool3d], pooling.lp_pool3d)
_add(_spellings("softmax"), norms.softmax, role=Role.GATE)
_add([F.softmin], norms.softmin, role=Role.GATE)
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
for _name in recurrent.CELLS:
    _pieces([getattr(torch, _name)], recurrent.network_rule(_name), anywhere=True)
    _pieces([getattr(torch, f"{_name}_cell")], recurrent.cell_rule(_name), anywhere=True)

# ---- Products of two activations; with one, they are linear ----


def _product(functions: Iterable[Any], rule: Rule, is_derivative: bool = False) -> None:
    _add(functions, rule, None, Role.PRODUCT, is_derivative, anywhere=True)


_products = _spellings("mul", "multiply") + [Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__]
_product(_products, products.multiply)
_quotients = _spellings("div", "divide", "true_divide")
_quotients += [Tensor.__truediv__, Tensor.__itruediv__]
_product(_quotients, products.divide)
_product([Tensor.__rdiv__, Tensor.__rtruediv__], products.reversed_divide, True)
for _name in ("matmul", "bmm", "mm", "mv"):
    _product(_spellings(_name), products.bilinear(getattr(torch, _name), "first"))
_product([Tensor.__matmul__], products.bilinear(torch.matmul, "first"))
_product([Tensor.__rmatmul__], lambda freeze, x, other: torch.matmul(other, x), True)
for _home, _names in (
    (torch, "dot vdot inner outer ger kron cross tensordot bilinear"),
    (torch.linalg, "vecdot"),
):
    for _name in _names.split():
        _product(_spellings(_name), products.bilinear(getattr(_home, _name)))
_product([torch.einsum], products.einsum)
_product(_spellings("multi_dot"), products.chain, True)
_product(_spellings("polar"), products.polar, True)
_product(_spellings("addcmul"), products.addcmul, True)
_product(_spellings("addcdiv"), products.addcdiv, True)
for _name, _function in (
    ("addmm", torch.mm),
    ("addmv", torch.mv),
    ("addr", torch.outer),
    ("baddbmm", torch.bmm),
    ("addbmm", lambda a, b: torch.bmm(a, b).sum(0)),
):
    _product(_spellings(_name), products.plus_product(_function), True)

for _loss, _rule in LOSSES.items():
    _add([_loss], _rule, is_derivative=_loss not in BENT, anywhere=True)

# ---- Values taken from places that depend on the input: the places are a decision ----

for _function in (F.grid_sample, torch.grid_sampler, torch.grid_sampler_2d, torch.grid_sampler_3d):
    _product([_function], products.Placed(_function, 1))
_pieces([torch.triangular_solve, Tensor.triangular_solve], products.triangular_solve)

# Operators of another package, by the names that they have with torch.
for _name, _places in (("deform_conv2d", (2, 3)), ("roi_align", (1,)), ("ps_roi_align", (1,))):
    _operator = products.operator("torchvision", _name)
    _placed = products.Placed(_operator, *_places)
    RULES[f"torchvision.{_name}"] = Entry(_placed, Taylor(_operator), anywhere=True)


def register_rule(torch_function: Callable, rule: Rule, policy: str | None = None) -> None:
    """Tells every run how `torch_function` is frozen; a later rule replaces an earlier one.

    A rule is a function of `freeze` and the call's own arguments. `freeze(decide, x)` is decide(x0)
    for all samples, a tensor or a tuple of tensors with the batch first, recorded on the tape; what
    else the rule does to x must be linear, or have rules. It serves the policy named, or all but
    "taylor", where the function's own derivative is taken.
    TypeError if one of the two cannot be called, ValueError for an unknown policy.

    >>> def bessel(freeze, x):                                  # read as a gate times x
    ...     return x * freeze(lambda x0: torch.special.bessel_j1(x0) / x0, x)
    >>> ls.register_rule(torch.special.bessel_j1, bessel)
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
