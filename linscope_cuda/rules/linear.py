"""Functions that are linear in the probe already: which of their arguments may hold it, their part
without offsets, and their offsets.

`y = A x + c` of such a function comes from its constants (a bias, an added number). F x and F^T u
need A x alone, and need it without subtraction: a small column of F would drown in a large
residual.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from numbers import Number
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CountProbes = Callable[[Any], int]  # how many tensors of a value depend on the network's input

# What torch calls an argument that may hold a probe.
_FIRST_NAMES = ("input", "self", "tensors", "x")
_OTHER_NAMES = ("other", "src", "source", "value", "values", "end", "mat2", "vec2", "tensor")
_OTHER_NAMES += ("prepend", "append", "mat1", "mat", "vec1", "vec", "batch1", "batch2")
_OTHER_NAMES += ("tensor1", "tensor2")

_ALL = tuple(range(64))


@dataclass(frozen=True)
class Linear:
    """Where the probe may be among a function's arguments, and how to get A x and c apart.

    `at`: the positions that may hold it, together or only `one` of them; `alone`: beside no other
    argument. A constant there is an
    offset; so is the argument `bias` = (position, name). `homogeneous` replaces all this where
    a function needs a way of its own. `offset` gives c, or what broadcasts to it, quicker than the
    function itself does, called with zeros.
    """

    at: tuple[int, ...] = (0,)
    one: bool = False
    alone: bool = False
    bias: tuple[int, str] | None = None
    homogeneous: Callable[..., Any] | None = None
    offset: Callable[..., Tensor] | None = None

    def allows(self, probes: list[int], named: dict[str, int]) -> bool:
        """Whether the call is linear, from the number of probes in each of its arguments."""
        inside = sum([probes[i] for i in self.at if i < len(probes)])
        total = sum(probes)
        for name, n in named.items():
            total += n
            if name in _FIRST_NAMES or (len(self.at) > 1 and name in _OTHER_NAMES):
                inside += n
        if (self.one and total > 1) or (self.alone and len(probes) + len(named) > 1):
            return False
        return inside == total

    def without_offsets(self, function: Callable, probes: CountProbes, args, kwargs) -> Any:
        """A x alone."""
        if writes_in_place(function):
            return self._written(function, probes, args, kwargs)
        return self._homogeneous(function, probes, args, kwargs)

    def _homogeneous(self, function: Callable, probes: CountProbes, args, kwargs) -> Any:
        if self.homogeneous is not None:
            return self.homogeneous(function, probes, args, kwargs)
        args, kwargs = self._without_constants(function, probes, args, kwargs)
        return function(*args, **kwargs)

    def _written(self, function: Callable, probes: CountProbes, args, kwargs) -> Tensor:
        """A x in the memory of the first argument, which an offset may fill, as the whole tensor
        that it is a view of.
        """
        target, *others = args
        if self.homogeneous is None and probes(target):
            return self._homogeneous(function, probes, args, kwargs)
        if self.homogeneous is None and not self.one:
            owner(target).zero_()
            return self._homogeneous(function, probes, args, kwargs)
        # What is written over is a factor: it must be read before it goes.
        copy = target.clone()
        known = int(bool(probes(target)))
        y = self._homogeneous(
            function, lambda v: known if v is copy else probes(v), (copy, *others), kwargs
        )
        if not probes(target):
            owner(target).zero_()
        return target.copy_(y)

    def has_offset(self, function: Callable, probes: CountProbes, args, kwargs) -> bool:
        """Whether a call may add a c."""
        if self.homogeneous is not None or (writes_in_place(function) and not probes(args[0])):
            return True
        left, named = self._without_constants(function, probes, args, kwargs)
        same = all(a is b for a, b in zip(args, left, strict=True))
        return not same or any(v is not named.get(k) for k, v in kwargs.items())

    def _without_constants(self, function: Callable, probes: CountProbes, args, kwargs):
        if self.bias is not None:
            at, name = self.bias
            args = (*args[:at], None, *args[at + 1 :]) if at < len(args) else args
            kwargs = {k: v for k, v in kwargs.items() if k != name}
        elif not self.one:
            kept = 0 if writes_in_place(function) else -1
            args = tuple(
                _only_probes(a, probes) if i in self.at and i != kept else a
                for i, a in enumerate(args)
            )
            kwargs = {
                k: _only_probes(v, probes) if k in (*_FIRST_NAMES, *_OTHER_NAMES) else v
                for k, v in kwargs.items()
            }
        return args, kwargs


_IN_PLACE = {"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__"}


@cache
def writes_in_place(function: Any) -> bool:
    """Whether a function writes its result into its first argument, by torch's convention."""
    name = getattr(function, "__name__", "")
    return name in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))


def out_of_place(function: Any) -> Any:
    """A function's twin that writes into none of its arguments; itself, if it does not."""
    if not writes_in_place(function):
        return function
    name = function.__name__
    twin = f"__{name[3:]}" if name in _IN_PLACE else name[:-1]
    return next(getattr(home, twin) for home in (torch, Tensor, F) if hasattr(home, twin))


def owner(target: Tensor) -> Tensor:
    """The tensor whose memory a view shows, or itself."""
    return target if target._base is None else target._base


def _only_probes(value: Any, probes: CountProbes) -> Any:
    """Zeros in place of what does not depend on the network's input."""
    if isinstance(value, Tensor):
        return value if probes(value) else value.new_zeros(()).expand(value.shape)
    if isinstance(value, tuple | list):
        kept = [_only_probes(v, probes) for v in value]
        same = all(a is b for a, b in zip(value, kept, strict=True))
        return value if same else type(value)(kept)
    if isinstance(value, Number):  # NumPy's are such too
        return type(value)(0)  # pyright: ignore[reportCallIssue]
    return value


def _batch_norm(function: Callable, probes: CountProbes, args: tuple, kwargs: dict) -> Any:
    def scaled(input, running_mean, running_var, weight=None, bias=None, training=False,
               momentum=0.1, eps=1e-5):  # fmt: skip
        scale = (running_var + eps).rsqrt()
        scale = scale if weight is None else scale * weight
        return input * scale.to(input.dtype).view(-1, *[1] * (input.dim() - 2))

    def in_torchs_order(input, weight, bias, running_mean, running_var, *options):
        return scaled(input, running_mean, running_var, weight, bias, *options[:3])

    form = in_torchs_order if function is torch.batch_norm else scaled
    return form(*args, **kwargs)


def _bias(function: Callable, probes: CountProbes, args: tuple, kwargs: dict) -> Tensor:
    def per_channel(input, weight, bias, *_, **__):
        return bias.view(-1, *[1] * (weight.dim() - 2))

    return per_channel(*args, **kwargs)


def _shift(function: Callable, probes: CountProbes, args: tuple, kwargs: dict) -> Tensor:
    def of_one_pixel(input, *others, **named):
        zero = input.new_zeros(1, input.shape[1], *[1] * (input.dim() - 2))
        return function(zero, *others, **named)

    return of_one_pixel(*args, **kwargs)


def _of_one_entry(function: Callable, probes: CountProbes, args: tuple, kwargs: dict) -> Tensor:
    """c of a function that works entry by entry."""

    def zero(value):
        return value.new_zeros([1] * value.dim()) if probes(value) else value

    return function(*map(zero, args), **{k: zero(v) for k, v in kwargs.items()})


def _add_product(function: Callable, probes: CountProbes, args: tuple, kwargs: dict) -> Any:
    """beta x + alpha (a b): of what does not depend on the input, the sum's other part is 0."""

    def of(input, *factors, **named):
        if not probes(input):
            return function(torch.zeros_like(input), *factors, **named)
        if factors:
            return function(input, torch.zeros_like(factors[0]), *factors[1:], **named)
        first = next(k for k in named if k not in ("alpha", "beta", "value"))
        return function(input, **{**named, first: torch.zeros_like(named[first])})

    return of(*args, **kwargs)


def _conv_tbc(function: Callable, probes: CountProbes, args: tuple, kwargs: dict) -> Tensor:
    def without_bias(input, weight, bias, *pad, **named):
        return function(input, weight, torch.zeros_like(bias), *pad, **named)

    return without_bias(*args, **kwargs)


def _methods(*names: str) -> list[Any]:
    """torch.NAME, Tensor.NAME and their in-place twins, as far as there are such."""
    spellings = [n + tail for n in names for tail in ("", "_")]
    return [getattr(home, n) for n in spellings for home in (torch, Tensor) if hasattr(home, n)]


def _functionals(*names: str) -> list[Any]:
    homes = (F, torch)
    return [getattr(home, n) for n in names for home in homes if hasattr(home, n)]


def _properties(*names: str) -> list[Any]:
    """Tensor.NAME as a function mode sees it."""
    return [getattr(Tensor, n).__get__ for n in names]


_BIAS = Linear(bias=(2, "bias"), offset=_bias)
_SUM = Linear(at=(0, 1), offset=_of_one_entry)
_PRODUCT = Linear(at=(0, 1), one=True)

_TABLE: list[tuple[Linear, list[Any]]] = [
    (
        _BIAS,
        [F.linear, *_functionals("conv1d", "conv2d", "conv3d")]
        + _functionals("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    ),
    (Linear(homogeneous=_batch_norm, offset=_shift), _functionals("batch_norm")),
    (Linear(bias=(3, "value")), [F.pad]),
    (
        _SUM,
        _methods("add", "sub", "subtract", "rsub", "__add__", "__radd__", "__sub__", "__rsub__")
        + [Tensor.__iadd__, Tensor.__isub__],
    ),
    # Joining and choosing.
    (
        Linear(),
        [torch.cat, torch.concat, torch.concatenate, torch.stack]
        + [torch.hstack, torch.vstack, torch.dstack, torch.column_stack, torch.row_stack],
    ),
    (Linear(at=_ALL), [torch.block_diag]),
    (Linear(alone=True), _methods("atleast_2d", "atleast_3d")),
    (Linear(at=(0, 3, 4)), _methods("diff")),
    (Linear(at=(1, 2)), [torch.where]),
    (Linear(at=(0, 2)), [Tensor.where]),
    (Linear(at=(0, 1)), _methods("lerp")),
    # Writing into a tensor.
    (Linear(at=(0, 2)), [Tensor.__setitem__, *_methods("masked_fill", "masked_scatter")]),
    (Linear(at=(0, 2)), _methods("index_put")),
    (Linear(at=(0, 1)), [Tensor.copy_]),
    (Linear(at=(0, 1)), _methods("slice_scatter", "select_scatter", "diagonal_scatter")),
    (
        Linear(at=(0, 3)),
        _methods("index_add", "index_copy", "index_fill", "scatter", "scatter_add"),
    ),
    # Shapes, choices and sums of one tensor's values.
    (
        Linear(),
        _methods(
            *("view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "clone"),
            *("swapaxes", "swapdims", "movedim", "moveaxis", "squeeze", "unsqueeze", "expand"),
            *("expand_as", "view_as", "reshape_as", "repeat", "repeat_interleave", "tile"),
            *("contiguous", "chunk", "split", "tensor_split", "unbind", "narrow", "select"),
            *("split_with_sizes", "select_copy", "hsplit", "vsplit", "dsplit", "ravel"),
            *("roll", "flip", "fliplr", "flipud", "rot90", "unfold", "cumsum", "sum", "mean"),
            *("trace", "diagonal", "diag", "diag_embed", "tril", "triu"),
            *("neg", "negative", "positive", "__neg__", "__pos__", "trapezoid", "trapz"),
            *("to", "float", "double", "half", "bfloat16", "type_as", "type", "cpu", "cuda"),
            *("detach", "alias", "broadcast_to"),
            *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "adjoint", "narrow_copy"),
            *("__getitem__", "index_select", "gather", "take_along_dim", "masked_select", "take"),
            *("as_strided", "resolve_conj", "resolve_neg", "zero", "stft", "istft"),
            *("view_as_real", "view_as_complex", "real", "imag", "conj", "conj_physical"),
        )
        + _properties("T", "mT", "H", "mH", "data", "real", "imag")
        + _functionals("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "fold", "unfold")
        + _functionals("interpolate", "upsample", "upsample_nearest", "upsample_bilinear")
        + _functionals("avg_pool1d", "avg_pool2d", "avg_pool3d", "grid_sample", "affine_grid")
        + _functionals("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
        + _functionals("max_unpool1d", "max_unpool2d", "max_unpool3d", "native_channel_shuffle")
        + [getattr(torch.fft, name) for name in torch.fft.__all__ if "freq" not in name],
    ),
    # Products with constants.
    (
        _PRODUCT,
        _methods("mul", "multiply", "matmul", "bmm", "mm", "mv", "tensordot", "dot", "inner")
        + _methods("outer", "ger", "kron", "vdot", "cross")
        + [Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__, Tensor.__matmul__]
        + [Tensor.__rmatmul__],
    ),
    (Linear(at=(0, 1), one=True, bias=(3, "bias")), [F.bilinear, torch.bilinear]),
    (Linear(homogeneous=_conv_tbc), [torch.conv_tbc]),
    (Linear(at=tuple(range(16)), one=True), [torch.einsum, torch.linalg.multi_dot]),
    (
        Linear(),
        _methods("div", "divide", "true_divide") + [Tensor.__truediv__, Tensor.__itruediv__],
    ),
    (
        Linear(at=(0, 1, 2), one=True, homogeneous=_add_product),
        _methods("addmm", "baddbmm", "addbmm", "addmv", "addr", "addcmul"),
    ),
    # In eval mode these do nothing; in training mode they are refused before they are called.
    (
        Linear(),
        _functionals("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout")
        + _functionals("feature_alpha_dropout", "feature_dropout"),
    ),
]

LINEAR: dict[Any, Linear] = {
    function: entry for entry, functions in _TABLE for function in functions
}


# Take from their second argument its shape or type alone.
LIKE: set[Any] = {Tensor.expand_as, Tensor.view_as, Tensor.reshape_as, Tensor.type_as}


def _names(*names: str) -> set[Any]:
    found = (getattr(Tensor, n, None) for n in names)
    return {f if callable(f) else f.__get__ for f in found if f is not None}


# What asks a tensor for facts that do not depend on its values, or makes a constant of the same
# kind.
NEUTRAL: set[Any] = _names(
    *("size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "__len__"),
    *("element_size", "is_contiguous", "is_floating_point", "is_complex", "get_device", "__hash__"),
    *("shape", "dtype", "device", "ndim", "layout", "is_cuda", "is_cpu", "requires_grad"),
    *("is_leaf", "grad_fn", "is_sparse", "is_quantized", "is_meta", "itemsize", "nbytes"),
    *("is_mkldnn", "is_nested", "names", "_version", "is_signed", "is_inference", "is_shared"),
    *("is_pinned", "is_same_size", "is_conj", "is_neg", "output_nr", "_base", "_is_view"),
    *("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor"),
    *("is_xpu", "is_mps", "requires_grad_", "register_hook", "retain_grad"),
) | {torch.zeros_like, torch.ones_like, torch.empty_like, torch.full_like}
NEUTRAL |= {torch.is_floating_point, torch.is_complex, torch.numel}
NEUTRAL |= {torch.is_tensor, torch.result_type, torch.is_same_size}

# What gives other numbers each time.
RANDOM: set[Any] = {
    getattr(home, name)
    for home, names in (
        (torch, "rand randn randint randperm normal bernoulli multinomial poisson binomial"),
        (torch, "rand_like randn_like randint_like"),
        (Tensor, "bernoulli bernoulli_ multinomial normal_ uniform_ random_ exponential_"),
        (Tensor, "cauchy_ geometric_ log_normal_"),
    )
    for name in names.split()
}

# What writes entries of one argument, at this position, to places that tensors name.
OVERWRITING: dict[Any, int] = {
    **dict.fromkeys(_functionals("max_unpool1d", "max_unpool2d", "max_unpool3d"), 0),
    **dict.fromkeys(_methods("scatter", "index_copy"), 3),
    **dict.fromkeys([*_methods("index_put"), Tensor.__setitem__], 2),
}
