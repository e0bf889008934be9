"""The scope calls that networks make: which, and what each operator must move for them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from linscope_cuda.zoo import networks as zoo

from .networks import SQUEEZENET, VGG19, Network, cyclegan, edsr, torchvision

native = torch.ops.linscope

NETWORKS = {
    "SqueezeNet": SQUEEZENET,
    "VGG-19": VGG19,
    "ResNet-50": torchvision("resnet50", 224),
    "EDSR": edsr(64, 64),
    "CycleGAN": cyclegan(256),
    "style": Network(zoo.StyleTransfer, (3, 512, 512)),
}
EPS = 1e-5


class ScopeCall(NamedTuple):
    """A layer that decides, on an input of a shape."""

    kind: str  # "relu", "pool", "norm" or "gate"
    shape: tuple[int, ...]  # channels, height, width
    window: tuple[tuple[int, ...], ...] | None = None  # kernel, stride, padding, dilation
    ceil_mode: bool = False

    def __str__(self) -> str:
        if self.window is None:
            return "x".join(map(str, self.shape))
        kernel, stride, padding, _ = (pair[0] for pair in self.window)
        return f"{'x'.join(map(str, self.shape))}, {kernel}/{stride}/{padding}"


class Run(NamedTuple):
    """An operator on tensors that are there, and the fewest bytes that it must read and write."""

    operator: str
    run: Callable[[], object]
    bytes: int


def scope_calls() -> dict[ScopeCall, str]:
    """Every scope call of the networks, once, with the first network that makes it."""
    found: dict[ScopeCall, str] = {}
    for name, network in NETWORKS.items():
        try:
            model = network.build().to("meta").eval()
        except ModuleNotFoundError as missing:
            print(f"benchmarks: {name} is left out: {missing}", file=sys.stderr)
            continue
        for module in model.modules():
            module.register_forward_hook(_noting(found, name))
        with torch.no_grad():
            model(torch.empty(1, *network.shape, device="meta"))
    return found


def _noting(found: dict[ScopeCall, str], network: str) -> Callable:
    def note(module: nn.Module, inputs: tuple[Tensor, ...], _: object) -> None:
        if (call := _call_of(module, inputs[0])) is not None:
            found.setdefault(call, network)

    return note


def _call_of(module: nn.Module, x: Tensor) -> ScopeCall | None:
    channels, *size = x.shape[1:] if x.dim() == 4 else (x.shape[1], 1, 1)
    shape = channels, *size
    if isinstance(module, nn.ReLU):
        return ScopeCall("relu", shape)
    if isinstance(module, nn.InstanceNorm2d):
        return ScopeCall("norm", shape)
    if isinstance(module, nn.Sigmoid | nn.Tanh):
        return ScopeCall("gate", shape)
    if isinstance(module, nn.MaxPool2d):
        pairs = (module.kernel_size, module.stride, module.padding, module.dilation)
        window = tuple((n, n) if isinstance(n, int) else tuple(n) for n in pairs)
        return ScopeCall("pool", shape, window, module.ceil_mode)
    return None


def runs(call: ScopeCall, x: Tensor) -> Iterator[Run]:
    """Every operator of a call: scopes on x, of which the first sample decides; frozen ones and
    transposes with all of x as probes.
    """

    def of(operator: str, run: Callable[[], object], *moved: Tensor) -> Run:
        return Run(operator, run, sum(t.nbytes for t in moved))

    g = x.flip(0)
    if call.kind == "relu":
        _, bits = native.relu_scope(x[:1], 1, 0.0, False)
        yield of("relu_scope", lambda: native.relu_scope(x, 1, 0.0, False), x, x, bits)
        yield of("relu_frozen", lambda: native.relu_frozen(x, bits, 0.0, False), x, x, bits)
    elif call.kind == "gate":
        _, gate = native.gate_scope(x[:1], 1, 1)
        yield of("gate_scope", lambda: native.gate_scope(x, 1, 1), x, x, gate)
        yield of("gate_frozen", lambda: native.gate_frozen(x, gate, 0.0), x, x, gate)
        yield of("gate_scope_backward", lambda: native.gate_scope_backward(g, x, 1, 1), g, x, x)
    elif call.kind == "pool":
        assert call.window is not None
        y, winners = native.max_pool2d_scope(x, 1, *call.window, call.ceil_mode)
        winners = winners[:1]
        size, window = list(x.shape[2:]), call.window
        yield of(
            "max_pool2d_scope",
            lambda: native.max_pool2d_scope(x, 1, *window, call.ceil_mode),
            *(x, y, winners),
        )
        yield of(
            "max_pool2d_frozen",
            lambda: native.max_pool2d_frozen(x, winners, *window),
            *(x, y, winners),
        )
        yield of(
            "max_pool2d_frozen_transpose",
            lambda: native.max_pool2d_frozen_transpose(y, winners, size, *window),
            *(y, winners, x),
        )
    else:
        _, mean, rstd = native.instance_norm_scope(x[:1], 1, None, None, EPS)
        yield of(
            "instance_norm_scope", lambda: native.instance_norm_scope(x, 1, None, None, EPS), x, x
        )
        yield of(
            "instance_norm_frozen", lambda: native.instance_norm_frozen(x, mean, rstd, None), x, x
        )
        yield of(
            "instance_norm_scope_backward",
            lambda: native.instance_norm_scope_backward(g, x, mean, rstd, None),
            *(g, x, x),
        )
