"""The functions that a line from a file may call: pure ones, and only with arguments that they ask
for.

None of them writes into its arguments, draws random numbers, or reads memory that nobody wrote.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..operators.table import OPERATORS
from .schema import bound

_ATEN = """
__lshift__.Scalar __lshift__.Tensor __rshift__.Scalar __rshift__.Tensor _adaptive_avg_pool2d
_adaptive_avg_pool3d _conj_physical _fft_c2c _fft_c2r _fft_r2c _native_batch_norm_legit_no_training
_reshape_alias _to_copy _trilinear _unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa
_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d add.Scalar add.Tensor
addbmm addcdiv addcmul addmm addmv addr alias avg_pool2d avg_pool3d baddbmm bitwise_and.Scalar
bitwise_and.Tensor bitwise_not bitwise_or.Scalar bitwise_or.Tensor bitwise_xor.Scalar
bitwise_xor.Tensor block_diag bmm cat channel_shuffle clone col2im constant_pad_nd conv_tbc
convolution cudnn_batch_norm cumsum detach diag_embed diagonal diagonal_scatter div.Scalar
div.Tensor dot elu_backward embedding eq.Scalar eq.Tensor expand flip gather ge.Scalar ge.Tensor
gelu_backward grid_sampler_2d grid_sampler_3d gt.Scalar gt.Tensor hardshrink_backward
hardsigmoid_backward hardswish_backward hardtanh_backward im2col index.Tensor index_add index_copy
index_fill.int_Scalar index_fill.int_Tensor index_put index_select le.Scalar le.Tensor
leaky_relu_backward lerp.Scalar lerp.Tensor linalg_cross log_sigmoid_backward logical_and
logical_not logical_or lt.Scalar lt.Tensor masked_fill.Scalar masked_fill.Tensor masked_scatter
masked_select max_unpool2d max_unpool3d mean mean.dim miopen_batch_norm mish_backward mm mul.Scalar
mul.Tensor mv native_batch_norm native_channel_shuffle ne.Scalar ne.Tensor neg permute
pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d reflection_pad3d repeat
replication_pad1d replication_pad2d replication_pad3d reshape roll rot90 rsub.Scalar rsub.Tensor
scatter.src scatter.value scatter_add select.int select_backward select_scatter sigmoid_backward
silu_backward slice.Tensor slice_backward slice_scatter softplus_backward softshrink_backward
squeeze squeeze.dim squeeze.dims stack sub.Scalar sub.Tensor sum sum.dim_IntList t take
tanh_backward threshold_backward trace transpose.int tril triu unfold unfold_backward unsqueeze
upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
upsample_nearest3d upsample_trilinear3d view view_as_complex view_as_real where.self
"""


def _overload(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


# By their names, as torch prints them.
FUNCTIONS: dict[str, Any] = {
    **{str(f): f for f in map(_overload, _ATEN.split())},
    **{str(o.overload): o.overload for o in OPERATORS.values() if o.frozen and not o.in_place},
}


def require_pure(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """ValueError unless a function is on the list and these are arguments for it."""
    if FUNCTIONS.get(str(function)) is not function:
        raise ValueError(f"{function} is not among the functions that a program's file may hold")
    given = bound(function, args, kwargs)
    name = function._schema.name.partition("::")[2]
    if not all(asks(**given) for start, asks in _UNASKED.items() if name.startswith(start)):
        raise ValueError(f"{function} has arguments that do not belong together")


# What kernels of torch do not ask themselves where they are called by these names: they would read
# beside the memory of their arguments, or write into them.


def _statistics(input, weight, bias, running_mean, running_var, training=False, **_) -> bool:
    stand = running_mean is not None and running_var is not None and not training
    given = (t for t in (weight, bias, running_mean, running_var) if t is not None)
    return stand and all(tuple(t.shape) == tuple(input.shape[1:2]) for t in given)


def _directions(self, dim, normalization, **_) -> bool:
    each = 0 < len(dim) == len(set(dim)) and all(0 <= d < len(self.shape) for d in dim)
    return each and 0 <= normalization <= 2


def _half(self, dim, normalization, last_dim_size) -> bool:
    known = _directions(self, dim, normalization) and last_dim_size > 0
    return known and self.shape[dim[-1]] == last_dim_size // 2 + 1


def _windows(grad_in, input_sizes, dim, size, step) -> bool:
    if not 0 <= dim < len(input_sizes) or size < 1 or step < 1 or size > input_sizes[dim]:
        return False
    count = (input_sizes[dim] - size) // step + 1
    return tuple(grad_in.shape) == (*input_sizes[:dim], count, *input_sizes[dim + 1 :], size)


def _scales(**given) -> bool:
    scales = (v for name, v in given.items() if name.startswith("scale") and v is not None)
    return all(2**-20 <= s < math.inf for s in scales)


def _modes(interpolation_mode, padding_mode, **_) -> bool:
    return 0 <= interpolation_mode <= 2 and 0 <= padding_mode <= 2


_UNASKED: dict[str, Callable[..., bool]] = {  # by the start of a function's name
    **dict.fromkeys(("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"), _statistics),
    "_native_batch_norm_legit": _statistics,
    **dict.fromkeys(("_fft_c2c", "_fft_r2c"), _directions),
    "_fft_c2r": _half,
    "unfold_backward": _windows,
    **dict.fromkeys(("upsample_", "_upsample_"), _scales),
    "grid_sampler_": _modes,
}
