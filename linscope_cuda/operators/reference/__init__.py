"""Every operator in plain torch: the specification, the oracle of the tests, and what runs where
nothing was compiled.

Names and arguments are those of the compiled operators. `x` holds `references` reference samples,
then probes; probe j belongs to reference j mod references. float16 and bfloat16 are computed in
float32. The operators' schemas are inferred from the annotations.
"""

from .gate import (
    GATES,
    Gate,
    gate_frozen,
    gate_scope,
    gate_scope_backward,
    gate_scope_jvp,
)
from .instance_norm import (
    instance_norm_frozen,
    instance_norm_scope,
    instance_norm_scope_backward,
    instance_norm_scope_jvp,
)
from .layout import (
    by_reference,
    dense,
    is_channels_last,
    is_dense,
    memory_format,
    wide_dtype,
)
from .max_pool2d import (
    code_dtype,
    max_pool2d_frozen,
    max_pool2d_frozen_transpose,
    max_pool2d_scope,
    pool_sizes,
    source_pixels,
)
from .piecewise import (
    clamp_apply,
    clamp_frozen,
    clamp_frozen_,
    clamp_scope,
    pack,
    relu_apply,
    relu_frozen,
    relu_frozen_,
    relu_scope,
    unpack,
)

__all__ = [
    "GATES",
    "Gate",
    "by_reference",
    "clamp_apply",
    "clamp_frozen",
    "clamp_frozen_",
    "clamp_scope",
    "code_dtype",
    "dense",
    "gate_frozen",
    "gate_scope",
    "gate_scope_backward",
    "gate_scope_jvp",
    "instance_norm_frozen",
    "instance_norm_scope",
    "instance_norm_scope_backward",
    "instance_norm_scope_jvp",
    "is_channels_last",
    "is_dense",
    "max_pool2d_frozen",
    "max_pool2d_frozen_transpose",
    "max_pool2d_scope",
    "memory_format",
    "pack",
    "pool_sizes",
    "relu_apply",
    "relu_frozen",
    "relu_frozen_",
    "relu_scope",
    "source_pixels",
    "unpack",
    "wide_dtype",
]
