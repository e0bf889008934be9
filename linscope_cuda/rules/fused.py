"""Rules with operators of their own: ReLU and its kin, clamps, smooth gates, max pooling and
instance normalisation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..operators import functions as ops
from ..operators.reference import is_channels_last
from ..operators.reference.max_pool2d import source_pixels
from ..operators.reference.piecewise import unpack
from .checking import outside
from .choices import Piece, Side, strided
from .entry import Decision, Fused


def _order_fault(given: Decision, input: Tensor) -> str | None:
    """Only images can be packed with their channels last."""
    last = given["channels_last"] and input.dim() != 4
    return "channels_last is true, and this is no image" if last else None


class Relu(Fused):
    """Equation 2 for ReLU."""

    def scope(self, references, input):
        return self._scope(references, input, 0.0)

    def frozen(self, decision, input):
        return ops.relu_frozen(input, decision["open"], 0.0, decision["channels_last"])

    def fault(self, given, taken, input, *args, **kwargs):
        return _order_fault(given, input)  # any bit is a side

    def choice(self, decision, input, *args, **kwargs):
        open = unpack(decision["open"], 1, tuple(input.shape[1:]), decision["channels_last"])
        return Side(), open.bool()

    @staticmethod
    def _scope(references, input, negative_slope):
        last = is_channels_last(input)
        y, bits = ops.relu_scope(input, references, negative_slope, last)
        return y, {"open": bits, "channels_last": last}


class LeakyRelu(Relu):
    def scope(self, references, input, negative_slope=0.01):
        return self._scope(references, input, negative_slope)

    def frozen(self, decision, input, negative_slope=0.01):
        return ops.relu_frozen(input, decision["open"], negative_slope, decision["channels_last"])


class PRelu(Relu):
    """ReLU plus, where it is closed, the learned slope of each channel."""

    def scope(self, references, input, weight):
        _, decision = self._scope(references, input, 0.0)
        return self.frozen(decision, input, weight), decision

    def frozen(self, decision, input, weight):
        bits, last = decision["open"], decision["channels_last"]
        per_channel = weight if weight.numel() == 1 else weight.view(-1, *[1] * (input.dim() - 2))
        closed = ops.relu_frozen(input, ~bits, 0.0, last)
        return ops.relu_frozen(input, bits, 0.0, last) + per_channel * closed


class Clamp(Fused):
    """ReLU6, hardtanh and clamp; an absent bound is infinite."""

    def __init__(self, bounds: Callable[..., tuple]):
        self.bounds = bounds

    def _bounds(self, args, kwargs):
        low, high = self.bounds(*args, **kwargs)
        return -torch.inf if low is None else low, torch.inf if high is None else high

    def scope(self, references, input, *args, **kwargs):
        last = is_channels_last(input)
        y, pieces = ops.clamp_scope(input, references, *self._bounds(args, kwargs), last)
        return y, {"pieces": pieces, "channels_last": last}

    def frozen(self, decision, input, *args, **kwargs):
        bounds = self._bounds(args, kwargs)
        return ops.clamp_frozen(input, decision["pieces"], *bounds, decision["channels_last"])

    def fault(self, given, taken, input, *args, **kwargs):
        pieces = given["pieces"]
        if (pieces & (pieces >> 1) & 0b01010101).any():
            return "pieces holds 3, outside of 0 to 2"
        return _order_fault(given, input)

    def choice(self, decision, input, *args, **kwargs):
        pieces = unpack(decision["pieces"], 2, tuple(input.shape[1:]), decision["channels_last"])
        return Piece(*self._bounds(args, kwargs)), pieces


class Gate(Fused):
    """Smooth switches: sigmoid, tanh, silu, gelu."""

    def __init__(self, kind: Callable[..., str]):
        self.kind = kind

    def scope(self, references, input, *args, **kwargs):
        y, gate = ops.gate_scope(input, references, self.kind(*args, **kwargs))
        return y, {"gate": gate}

    def frozen(self, decision, input, *args, **kwargs):
        return ops.gate_frozen(input, decision["gate"], ops.gate_shift(self.kind(*args, **kwargs)))


class MaxPool2d(Fused):
    """The reference's winners, read in every probe."""

    least_dims = 4

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
        y, winners = ops.max_pool2d_scope(
            input, references, kernel_size, stride, padding, dilation, ceil_mode
        )
        return y, {"winners": winners}

    def frozen(
        self,
        decision,
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

    def fault(self, given, taken, input, kernel_size, stride=None, padding=0, dilation=1, *_, **__):
        kernel, stride, padding, dilation = ops.window(kernel_size, stride, padding, dilation)
        winners = given["winners"].long()
        if wrong := outside("winners", winners, 0, kernel[0] * kernel[1] - 1):
            return wrong
        for axis, step in ((0, winners // kernel[1]), (1, winners % kernel[1])):
            start = torch.arange(winners.shape[2 + axis]) * stride[axis] - padding[axis]
            pixel = start.view(-1, *[1] * (1 - axis)) + step * dilation[axis]
            if wrong := outside("winners", pixel, 0, input.shape[2 + axis] - 1):
                return f"{wrong}: a pixel that is not in the image"
        return None

    def choice(
        self, decision, input, kernel_size, stride=None, padding=0, dilation=1, *args, **kwargs
    ):
        window = ops.window(kernel_size, stride, padding, dilation)
        return strided(*window), source_pixels(decision["winners"], input.shape[3], *window)


class InstanceNorm(Fused):
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
                decision, input, running_mean, running_var, weight, bias, False, 0.0, eps
            ), decision
        y, mean, rstd = ops.instance_norm_scope(input, references, weight, bias, eps)
        return y, {"mean": mean, "rstd": rstd}

    def frozen(
        self,
        decision,
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
        shift = None if bias is None else bias.to(rstd.dtype).expand_as(rstd)
        return ops.instance_norm_frozen(input, mean, scale, shift)
