"""Functions that are linear in the probe already, y = A x + c: which of their arguments may hold
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# What torch calls an argument that may hold a probe.
_FIRST_NAMES = ("input", "self", "tensors", "x")
_OTHER_NAMES = ("other", "src", "source", "value", "values", "end", "mat2", "vec2", "tensor")
_OTHER_NAMES += ("prepend", "append", "mat1", "mat", "vec1", "vec", "batch1", "batch2")
_OTHER_NAMES += ("tensor1", "tensor2")

_ALL = tuple(range(64))


@dataclass(frozen=True)
class Linear:
    """Where the probe may be among a function's arguments.

    `at`: the positions that may hold it, together or only `one` of them; `alone`: beside no other
    argument.
    """

    at: tuple[int, ...] = (0,)
    one: bool = False
    alone: bool = False

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


_SUM = Linear(at=(0, 1))
_PRODUCT = Linear(at=(0, 1), one=True)

_TABLE: list[tuple[Linear, list[Any]]] = [
    (
        Linear(),
        [F.linear, *_functionals("conv1d", "conv2d", "conv3d")]
        + _functionals("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    ),
    (Linear(), _functionals("batch_norm")),
    (Linear(), [F.pad]),
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
    (Linear(at=_ALL), [torch.block_diag, torch.broadcast_tensors, torch.cartesian_prod]),
    (Linear(at=_ALL), [torch.atleast_1d, torch.atleast_2d, torch.atleast_3d, torch.meshgrid]),
    (Linear(at=_ALL), [torch.functional.block_diag, torch.functional.cartesian_prod]),
    (Linear(at=(0, 1)), [torch.complex]),
    (Linear(), [torch.as_tensor, torch.asarray]),
    (Linear(at=(0, 3, 4)), _methods("diff")),
    (Linear(at=(1, 2)), [torch.where]),
    (Linear(at=(0, 2)), [Tensor.where]),
    (Linear(at=(0, 1)), _methods("lerp")),
    # Writing into a tensor.
    (Linear(at=(0, 2)), [Tensor.__setitem__, *_methods("masked_fill", "masked_scatter")]),
    (Linear(at=(0, 2)), _methods("index_put")),
    (Linear(at=(0, 1)), [Tensor.copy_]),
    (
        Linear(at=(0, 1)),
        _methods("slice_scatter", "select_scatter", "diagonal_scatter"),
    ),
    (Linear(at=(0, 2)), _methods("put")),
    (Linear(), [torch.fft.fftshift, torch.fft.ifftshift]),
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
            *("trace", "diagonal", "diag", "diag_embed", "diagflat", "tril", "triu"),
            *("alias_copy", "as_strided_copy", "detach_copy", "diagonal_copy", "expand_copy"),
            *("permute_copy", "split_copy", "split_with_sizes_copy", "squeeze_copy", "t_copy"),
            *("transpose_copy", "unbind_copy", "unfold_copy", "unsqueeze_copy", "view_copy"),
            *("view_as_real_copy", "view_as_complex_copy", "sum_to_size", "unsafe_chunk"),
            *("unsafe_split", "unsafe_split_with_sizes", "swapaxes", "deg2rad", "rad2deg"),
            *("cumulative_trapezoid", "gradient", "ldexp"),
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
        + _functionals("constant_pad_nd", "grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
        + [torch.linalg.diagonal, *_methods("cdouble", "cfloat", "chalf", "slice_inverse")]
        + [
            getattr(torch.fft, name) for name in dir(torch.fft) if name.rstrip("2n").endswith("fft")
        ],
    ),
    # Products with constants.
    (
        _PRODUCT,
        _methods("mul", "multiply", "matmul", "bmm", "mm", "mv", "tensordot", "dot", "inner")
        + _methods("outer", "ger", "kron", "vdot", "cross", "chain_matmul")
        + [torch.linalg.cross, torch.linalg.vecdot, torch.linalg.matmul, Tensor.dot]
        + [Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__, Tensor.__matmul__]
        + [Tensor.__rmatmul__],
    ),
    (Linear(at=(0, 1), one=True), [F.bilinear, torch.bilinear]),
    (Linear(), [torch.conv_tbc]),
    (Linear(at=tuple(range(16)), one=True), [torch.einsum, torch.linalg.multi_dot]),
    (
        Linear(),
        _methods("div", "divide", "true_divide") + [Tensor.__truediv__, Tensor.__itruediv__],
    ),
    # Operators of another package, by the names that they have with torch.
    (Linear(), [f"torchvision.{name}" for name in ("deform_conv2d", "roi_align", "ps_roi_align")]),
    # Solutions of linear equations, their matrix a constant.
    (
        Linear(at=(1,)),
        [torch.linalg.solve, torch.linalg.solve_ex, torch.linalg.solve_triangular]
        + [torch.linalg.tensorsolve],
    ),
    (Linear(), _methods("cholesky_solve", "lu_solve")),
    (Linear(at=(2,)), [torch.linalg.lu_solve, torch.linalg.ldl_solve]),
    (Linear(at=(0, 1), one=True), [torch.sparse.mm]),
    (
        Linear(at=(0, 1, 2), one=True),
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


# Mix what they are given by weights: what comes out was not decided on.
LAYERS: set[Any] = {
    *(F.linear, F.bilinear, torch.bilinear, torch.conv_tbc, torch.einsum, torch.tensordot),
    *_functionals("conv1d", "conv2d", "conv3d"),
    *_functionals("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *_methods("matmul", "bmm", "mm", "mv", "addmm", "addmv", "baddbmm", "addbmm"),
    *(Tensor.__matmul__, Tensor.__rmatmul__, torch.sparse.mm),
}

# Give the same numbers in a dtype.
CASTS: set[Any] = set(_methods("to", "float", "half", "bfloat16", "type", "type_as", "double"))

# Take from their second argument its shape or type alone.
LIKE: set[Any] = {Tensor.expand_as, Tensor.view_as, Tensor.reshape_as, Tensor.type_as, Tensor.to}


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
