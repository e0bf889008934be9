"""The paper's LinearScopes as drop-in layers: each takes a doubled batch where the plain layer
takes a batch.
"""

from __future__ import annotations

from torch import Tensor, nn

from .operators import functions as ops
from .rules.fused import InstanceNorm, PRelu


class LinearScope(nn.Module):
    """What all scope layers share: the plain layer's arguments, and `references`, the number of
    samples that decide.

    The input is `references` samples, then their probes (probe j belongs to reference j mod
    references); the output is [h(x0), A(x0) x1 + c(x0)] (equation 2). `inplace` is ignored.
    ValueError for a batch that is no multiple of `references`.

    >>> scope = ls.ReLUScope()
    >>> scope(torch.tensor([[1.0, -1.0], [5.0, 5.0]]))   # tensor([[1., 0.], [5., 0.]])
    """

    def __init__(self, *args, references: int = 1, **kwargs):
        super().__init__(*args, **kwargs)
        if references < 1:
            raise ValueError(
                f"{type(self).__name__} wants 1 reference or more, was given {references}"
            )
        self.references = references

    def extra_repr(self) -> str:
        return ", ".join(filter(None, (super().extra_repr(), f"references={self.references}")))


class ReLUScope(LinearScope, nn.ReLU):
    """nn.ReLU: a probe passes where x0 > 0.

    >>> ls.ReLUScope()(torch.cat([x0, x1]))
    """

    def forward(self, input: Tensor) -> Tensor:
        return ops.relu_scope(input, self.references)[0]


class LeakyReLUScope(LinearScope, nn.LeakyReLU):
    """nn.LeakyReLU: a probe passes where x0 > 0 and is scaled elsewhere.

    >>> ls.LeakyReLUScope(0.2)(torch.cat([x0, x1]))
    """

    def forward(self, input: Tensor) -> Tensor:
        return ops.relu_scope(input, self.references, self.negative_slope)[0]


class PReLUScope(LinearScope, nn.PReLU):
    """nn.PReLU: a probe passes where x0 > 0 and is scaled by the learned slope elsewhere.

    >>> ls.PReLUScope(num_parameters=1)(torch.cat([x0, x1]))
    """

    def forward(self, input: Tensor) -> Tensor:
        return PRelu().scope(self.references, input, self.weight)[0]


class HardtanhScope(LinearScope, nn.Hardtanh):
    """nn.Hardtanh: a probe passes where x0 is inside, and is the bound where x0 saturates.

    >>> ls.HardtanhScope(-1.0, 1.0)(torch.cat([x0, x1]))
    """

    def forward(self, input: Tensor) -> Tensor:
        return ops.clamp_scope(input, self.references, self.min_val, self.max_val)[0]


class ReLU6Scope(LinearScope, nn.ReLU6):
    """nn.ReLU6: a probe passes where 0 < x0 < 6, and is 0 or 6 elsewhere.

    >>> ls.ReLU6Scope()(torch.cat([x0, x1]))
    """

    def forward(self, input: Tensor) -> Tensor:
        return ops.clamp_scope(input, self.references, 0.0, 6.0)[0]


class SigmoidScope(LinearScope, nn.Sigmoid):
    """nn.Sigmoid: the secant through h(0), A = tanh(x0 / 2) / (2 x0) and c = 1/2.

    >>> ls.SigmoidScope()(torch.cat([x0, x1]))
    """

    def forward(self, input: Tensor) -> Tensor:
        return ops.gate_scope(input, self.references, "sigmoid")[0]


class TanhScope(LinearScope, nn.Tanh):
    """nn.Tanh: A = tanh(x0) / x0, 1 at 0.

    >>> ls.TanhScope()(torch.cat([x0, x1]))
    """

    def forward(self, input: Tensor) -> Tensor:
        return ops.gate_scope(input, self.references, "tanh")[0]


class SiLUScope(LinearScope, nn.SiLU):
    """nn.SiLU: A = sigmoid(x0).

    >>> ls.SiLUScope()(torch.cat([x0, x1]))
    """

    def forward(self, input: Tensor) -> Tensor:
        return ops.gate_scope(input, self.references, "silu")[0]


class GELUScope(LinearScope, nn.GELU):
    """nn.GELU: A is the normal distribution function of x0, or its tanh approximation.

    >>> ls.GELUScope(approximate="tanh")(torch.cat([x0, x1]))
    """

    def forward(self, input: Tensor) -> Tensor:
        kind = {"none": "gelu", "tanh": "gelu_tanh"}[self.approximate]
        return ops.gate_scope(input, self.references, kind)[0]


class MaxPool2dScope(LinearScope, nn.MaxPool2d):
    """nn.MaxPool2d: a probe gives the pixel that won in x0.

    >>> ls.MaxPool2dScope(2)(torch.cat([x0, x1]))
    """

    def forward(self, input: Tensor) -> Tensor:
        return ops.max_pool2d_scope(
            input,
            self.references,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
        )[0]


class InstanceNorm2dScope(LinearScope, nn.InstanceNorm2d):
    """nn.InstanceNorm2d: a probe is normalised with x0's mean and deviation (running ones in eval,
    if tracked).

    >>> ls.InstanceNorm2dScope(x0.shape[1])(torch.cat([x0, x1]))
    """

    def forward(self, input: Tensor) -> Tensor:
        own_statistics = self.training or not self.track_running_stats
        return InstanceNorm().scope(
            self.references,
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            own_statistics,
            eps=self.eps,
        )[0]
