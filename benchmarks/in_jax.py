"""A network of this benchmark as a function of jax, layer by layer from its traced graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax
from torch import Tensor, fx, nn

from linscope_cuda.operators.functions import pair

Array = Any
_NCHW = ("NCHW", "OIHW", "NCHW")


def array(tensor: Tensor) -> Array:
    return jnp.asarray(tensor.detach().numpy())


def tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.array(values))


class _Tracer(fx.Tracer):
    """Stops at layers of torch, those that the model derives from them too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


def function(model: nn.Module) -> Callable[[Array], Array]:
    """The model for one batch (N, C, H, W). NotImplementedError for a layer that has no form."""
    graph = _Tracer().trace(model)
    layers = {
        node.target: _layer(model.get_submodule(str(node.target)))
        for node in graph.nodes
        if node.op == "call_module"
    }

    def run(x: Array) -> Array:
        values: dict[fx.Node, Array] = {}
        for node in graph.nodes:
            args = fx.map_arg(node.args, values.__getitem__)
            kwargs = fx.map_arg(node.kwargs, values.__getitem__)
            if node.op == "placeholder":
                values[node] = x
            elif node.op == "call_module":
                values[node] = layers[node.target](*args)
            elif node.op == "output":
                return args[0]
            else:
                values[node] = _call(node, args, kwargs)
        raise AssertionError("a graph ends with its output")

    return run


def _call(node: fx.Node, args: Any, kwargs: Any) -> Array:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name == "cat":
        return jnp.concatenate(args[0], kwargs.get("dim", *args[1:2]))
    if name == "add":
        return args[0] + args[1]
    if name == "mul":
        return args[0] * args[1]
    if name == "flatten":
        return args[0].reshape(*args[0].shape[: args[1]], -1)
    raise NotImplementedError(f"{name} is not written for jax")


def _layer(layer: nn.Module) -> Callable[[Array], Array]:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return _convolution(layer)
    if isinstance(layer, nn.Linear):
        weight, bias = array(layer.weight), array(layer.bias)
        return lambda x: x @ weight.T + bias
    if isinstance(layer, nn.ReLU):
        return lambda x: jnp.maximum(x, 0)
    if isinstance(layer, nn.Tanh):
        return jnp.tanh
    if isinstance(layer, nn.Dropout):
        return lambda x: x
    if isinstance(layer, nn.Flatten):
        return lambda x: x.reshape(len(x), -1)
    if isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size == 1:
        return lambda x: x.mean((2, 3), keepdims=True)
    if isinstance(layer, nn.ReflectionPad2d):
        left, right, top, bottom = layer.padding
        pads = ((0, 0), (0, 0), (top, bottom), (left, right))
        return lambda x: jnp.pad(x, pads, mode="reflect")
    if isinstance(layer, nn.PixelShuffle):
        return lambda x: _pixel_shuffle(x, layer.upscale_factor)
    if isinstance(layer, nn.MaxPool2d):
        return lambda x: _max_pool(x, layer)
    if isinstance(layer, nn.InstanceNorm2d):
        return lambda x: _instance_norm(x, layer.eps)
    raise NotImplementedError(f"{type(layer).__name__} is not written for jax")


def _convolution(layer: nn.Conv2d | nn.ConvTranspose2d) -> Callable[[Array], Array]:
    weight, bias = array(layer.weight), None
    if layer.bias is not None:
        bias = array(layer.bias)[:, None, None]
    pads = tuple(int(p) for p in layer.padding)
    strides: tuple[int, ...] = tuple(layer.stride)
    if isinstance(layer, nn.ConvTranspose2d):
        weight = jnp.flip(weight, (2, 3)).swapaxes(0, 1)
        spread, strides = strides, (1, 1)
        around = tuple(
            (k - 1 - p, k - 1 - p + more)
            for k, p, more in zip(layer.kernel_size, pads, layer.output_padding, strict=True)
        )
    else:
        spread, around = (1, 1), tuple((p, p) for p in pads)

    def run(x: Array) -> Array:
        y = lax.conv_general_dilated(
            x,
            weight,
            strides,
            around,
            spread,
            tuple(layer.dilation),
            _NCHW,
            feature_group_count=layer.groups,
        )
        return y if bias is None else y + bias

    return run


def _pixel_shuffle(x: Array, r: int) -> Array:
    n, c, h, w = x.shape
    x = x.reshape(n, c // r**2, r, r, h, w).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(n, c // r**2, h * r, w * r)


def _max_pool(x: Array, layer: nn.MaxPool2d) -> Array:
    kernel, stride = (pair(v) for v in (layer.kernel_size, layer.stride))
    behind = [0, 0]
    if layer.ceil_mode:  # the last window may reach over the edge
        behind = [-(size - k) % s for size, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    pads = ((0, 0), (0, 0), (0, behind[0]), (0, behind[1]))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, *kernel), (1, 1, *stride), pads)


def _instance_norm(x: Array, eps: float) -> Array:
    mean, variance = x.mean((2, 3), keepdims=True), x.var((2, 3), keepdims=True)
    return (x - mean) * lax.rsqrt(variance + eps)


class Linearized:
    """F by jax.linearize and F^T by jax.linear_transpose, compiled for probes of one number."""

    def __init__(self, model: nn.Module, x0: Tensor):
        at = array(x0)
        _, linear = jax.linearize(function(model), at)
        transposed = jax.linear_transpose(linear, at)
        # What was kept goes in as arguments: as constants the compiler would fold it at length.
        self._linear, self._transposed = linear, transposed
        self._run = jax.jit(lambda map, probes: jax.vmap(map)(probes))

    def filter(self, x: Tensor) -> Tensor:
        return tensor(self._run(self._linear, array(x)[:, None]))[:, 0]

    def transpose(self, u: Tensor) -> Tensor:
        return tensor(self._run(self._transposed, array(u)[:, None])[0])[:, 0]
