"""The operators of linscope_cuda.reference, with the same names and arguments, run by the emulator.

What the .cu files do around a launch (sizes, memory format, allocation) is done here, with every
buffer of exactly its size.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from linscope_cuda.operators.reference import is_channels_last, pool_sizes, wide_dtype

from .client import Emulator, Result
from .worker import IN_PLACE, INPUT, OUTPUT, Buffer, Call

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

# What an H100 gives a block.
SHARED_LIMIT = 227 * 1024


class Output(NamedTuple):
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool = False


def to_bytes(t: Tensor, channels_last: bool) -> bytes:
    """The elements in the order of memory."""
    t = t.permute(0, 2, 3, 1) if channels_last else t
    return t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def from_bytes(content: bytes, output: Output) -> Tensor:
    flat = torch.frombuffer(bytearray(content), dtype=output.dtype) if content else torch.empty(0)
    if not output.channels_last:
        return flat.reshape(output.shape)
    n, c, h, w = output.shape
    return flat.reshape(n, h, w, c).permute(0, 3, 1, 2)


class Operators:
    """`misaligned`: every buffer, or the one of this name, begins one element behind an aligned
    address, so that no kernel may use its wide accesses. `order`: that of the threads, as in
    schedule.h. `limits`: of csrc's LAUNCH_LIMITs those that are other than usual.
    """

    def __init__(
        self,
        emulator: Emulator,
        misaligned: bool | str = False,
        order: int = 0,
        shared_limit: int = SHARED_LIMIT,
        limits: dict[str, int] | None = None,
    ):
        self.emulator = emulator
        self.misaligned = misaligned
        self.order = order
        self.shared_limit = shared_limit
        self.limits = limits
        self.buffers: list[str] = []  # of the last launch
        self.result = Result([], [], [], [], [])  # of the last launch

    def _run(
        self,
        launcher: str,
        dtype: torch.dtype,
        integers: list[int],
        reals: list[float],
        inputs: dict[str, Tensor | None],
        outputs: list[Output],
        channels_last: bool = False,
        order_of_buffers: list[str] | None = None,
        in_place: str = "",
    ) -> tuple[Tensor, ...]:
        buffers: dict[str, Buffer | None] = {}
        for name, t in inputs.items():
            if t is None:
                buffers[name] = None
                continue
            content = to_bytes(t, channels_last and t.dim() == 4)
            role = IN_PLACE if name == in_place else INPUT
            offset = self._offset(name, t.dtype)
            buffers[name] = Buffer(name, role, len(content), offset, content)
        for o in outputs:
            if o.name == in_place:
                continue
            size = math.prod(o.shape) * o.dtype.itemsize
            buffers[o.name] = Buffer(o.name, OUTPUT, size, self._offset(o.name, o.dtype))
        self.result = self.emulator.run(
            Call(
                launcher,
                DTYPES.index(dtype),
                integers,
                reals,
                [buffers[name] for name in order_of_buffers or buffers],
                self.order,
                limits=self.limits,
            )
        )
        self.buffers = [name for name in buffers if buffers[name]]
        return tuple(map(from_bytes, self.result.contents, outputs))

    def _offset(self, name: str, dtype: torch.dtype) -> int:
        return dtype.itemsize if self.misaligned in (True, name) else 0

    def _piecewise(self, launcher, x, references, reals, bits, decision, channels_last):
        size = math.prod(x.shape[1:])
        y = Output("y", tuple(x.shape), x.dtype, channels_last)
        packed = Output("decision", (references, (size * bits + 7) // 8), torch.uint8)
        inputs = {"x": x} if decision is None else {"x": x, "decision": decision}
        outputs = [y, packed] if decision is None else [y]
        shape = [x.shape[0], references, size]
        return self._run(launcher, x.dtype, shape, reals, inputs, outputs, channels_last)

    def relu_scope(self, x, references, negative_slope, channels_last):
        reals = [negative_slope]
        return self._piecewise("relu_scope", x, references, reals, 1, None, channels_last)

    def relu_frozen(self, x, decision, negative_slope, channels_last):
        reals = [negative_slope]
        references = len(decision)
        return self._piecewise("relu_frozen", x, references, reals, 1, decision, channels_last)[0]

    def relu_frozen_(self, x, decision, negative_slope, channels_last):
        return self._in_place("relu_frozen_", x, decision, [negative_slope], channels_last)

    def clamp_frozen_(self, x, decision, min, max, channels_last):
        return self._in_place("clamp_frozen_", x, decision, [min, max], channels_last)

    def _in_place(self, launcher, x, decision, reals, channels_last):
        shape = [x.shape[0], len(decision), math.prod(x.shape[1:])]
        result = Output("x", tuple(x.shape), x.dtype, channels_last)
        inputs = {"x": x, "decision": decision}
        return self._run(
            launcher, x.dtype, shape, reals, inputs, [result], channels_last, in_place="x"
        )[0]

    def clamp_scope(self, x, references, min, max, channels_last):
        return self._piecewise("clamp_scope", x, references, [min, max], 2, None, channels_last)

    def clamp_frozen(self, x, decision, min, max, channels_last):
        reals, references = [min, max], len(decision)
        return self._piecewise("clamp_frozen", x, references, reals, 2, decision, channels_last)[0]

    def gate_scope(self, x, references, kind):
        last = is_channels_last(x)
        y = Output("y", tuple(x.shape), x.dtype, last)
        gate = Output("gate", (references, *x.shape[1:]), x.dtype, last)
        integers = [x.shape[0], references, math.prod(x.shape[1:]), kind]
        return self._run("gate_scope", x.dtype, integers, [], {"x": x}, [y, gate], last)

    def gate_frozen(self, x, gate, shift):
        last = is_channels_last(x)
        y = Output("y", tuple(x.shape), x.dtype, last)
        integers = [x.shape[0], len(gate), math.prod(x.shape[1:])]
        inputs = {"x": x, "gate": gate}
        return self._run("gate_frozen", x.dtype, integers, [shift], inputs, [y], last)[0]

    def gate_scope_backward(self, grad_y, x, references, kind):
        last = is_channels_last(x)
        out = Output("grad_x", tuple(x.shape), x.dtype, last)
        integers = [x.shape[0], references, math.prod(x.shape[1:]), kind]
        inputs = {"grad_y": grad_y, "x": x}
        return self._run("gate_scope_backward", x.dtype, integers, [], inputs, [out], last)[0]

    @staticmethod
    def _pool_shape(samples, references, channels, last, in_size, out_size, window):
        shape = [samples, references, channels, int(last), *in_size, *out_size]
        return shape + [n for pair in window for n in pair]

    def max_pool2d_scope(self, x, references, kernel, stride, padding, dilation, ceil_mode):
        last, window = is_channels_last(x), (kernel, stride, padding, dilation)
        size = list(pool_sizes(x.shape[2:], window, ceil_mode))
        code = torch.uint8 if kernel[0] * kernel[1] <= 256 else torch.int32
        y = Output("y", (*x.shape[:2], *size), x.dtype, last)
        decision = Output("decision", (references, x.shape[1], *size), code, last)
        shape = self._pool_shape(
            x.shape[0], references, x.shape[1], last, x.shape[2:], size, window
        )
        outputs = [y, decision]
        return self._run("max_pool2d_scope", x.dtype, shape, [], {"x": x}, outputs, last)

    def max_pool2d_frozen(self, x, decision, kernel, stride, padding, dilation):
        last, size = is_channels_last(x), decision.shape[2:]
        y = Output("y", (*x.shape[:2], *size), x.dtype, last)
        shape = self._pool_shape(
            x.shape[0],
            len(decision),
            x.shape[1],
            last,
            x.shape[2:],
            size,
            (kernel, stride, padding, dilation),
        )
        inputs = {"x": x, "decision": decision}
        return self._run("max_pool2d_frozen", x.dtype, shape, [], inputs, [y], last)[0]

    def max_pool2d_frozen_transpose(self, u, decision, size, kernel, stride, padding, dilation):
        last = is_channels_last(u)
        x = Output("x", (*u.shape[:2], *size), u.dtype, last)
        shape = self._pool_shape(
            u.shape[0],
            len(decision),
            u.shape[1],
            last,
            size,
            u.shape[2:],
            (kernel, stride, padding, dilation),
        )
        inputs = {"u": u, "decision": decision}
        return self._run("max_pool2d_frozen_transpose", u.dtype, shape, [], inputs, [x], last)[0]

    @staticmethod
    def _norm_shape(x, references, last):
        return [x.shape[0], references, x.shape[1], math.prod(x.shape[2:]), int(last)]

    def _workspace(self, x, shape, backward):
        """What launches keep between them, of exactly its size."""
        result = Output("sizes", (2,), torch.int64)
        (sizes,) = self._run("instance_norm_workspace", x.dtype, shape, [], {}, [result])
        return Output("workspace", (int(sizes[int(backward)]),), wide_dtype(x.dtype))

    def instance_norm_scope(self, x, references, weight, bias, eps):
        last, planes = is_channels_last(x), (references, x.shape[1])
        shape = self._norm_shape(x, references, last)
        outputs = [Output("y", tuple(x.shape), x.dtype, last)]
        outputs += [Output(name, planes, wide_dtype(x.dtype)) for name in ("mean", "rstd")]
        outputs.append(self._workspace(x, shape, False))
        integers = [*shape, self.shared_limit]
        inputs = {"x": x, "weight": weight, "bias": bias}
        name = "instance_norm_scope"
        return self._run(name, x.dtype, integers, [eps], inputs, outputs, last)[:-1]

    def instance_norm_frozen(self, x, mean, scale, shift):
        last = is_channels_last(x)
        y = Output("y", tuple(x.shape), x.dtype, last)
        integers = self._norm_shape(x, len(scale), last)
        inputs = {"x": x, "mean": mean, "scale": scale, "shift": shift}
        return self._run("instance_norm_frozen", x.dtype, integers, [], inputs, [y], last)[0]

    def instance_norm_scope_backward(self, grad_y, x, mean, rstd, weight):
        last = is_channels_last(x)
        integers = self._norm_shape(x, len(mean), last)
        outputs = [Output("grad_x", tuple(x.shape), x.dtype, last)]
        outputs += [Output(name, tuple(mean.shape), mean.dtype) for name in ("sum_g", "sum_gx")]
        outputs.append(self._workspace(x, integers, True))
        inputs = {"grad_y": grad_y, "x": x, "mean": mean, "rstd": rstd, "weight": weight}
        name = "instance_norm_scope_backward"
        return self._run(name, x.dtype, integers, [], inputs, outputs, last)[:-1]
