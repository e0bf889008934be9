"""Weight files as the zoo's publishers wrote them, made from models of any weights."""

import io
import struct
from collections.abc import Mapping

import h5py
import numpy as np
import torch
from torch import Tensor, nn


def of_torch(state: Mapping[str, object]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def of_keras(arrays: Mapping[str, Tensor]) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for path, array in arrays.items():
            file[path] = array.numpy()
    return buffer.getvalue()


def of_ncnn(layers: list[tuple[Tensor, Tensor]]) -> bytes:
    """Weights, as ncnn orders their dimensions, and biases."""
    data = b""
    for weight, bias in layers:
        half = weight.numpy().astype("<f2").tobytes()
        data += struct.pack("<I", 0x01306B47) + half + b"\0" * (-len(half) % 4)
        data += bias.numpy().astype("<f4").tobytes()
    return data


def of_onnx(tensors: Mapping[str, Tensor], raw: bool = True) -> bytes:
    """A ModelProto with a version, a producer, and a graph with a node and the tensors."""
    graph = _bytes_field(1, _bytes_field(4, b"Conv"))  # GraphProto.node, NodeProto.op_type
    for name, tensor in tensors.items():
        graph += _bytes_field(5, onnx_tensor(name, tensor.numpy(), raw))
    return _number_field(1, 8) + _bytes_field(2, b"made up") + _bytes_field(7, graph)


def onnx_tensor(name: str, array: np.ndarray, raw: bool) -> bytes:
    """A TensorProto; `raw` also decides whether its shape is packed."""
    kind = {"float32": 1, "int64": 7}[array.dtype.name]
    if raw:
        shape = _bytes_field(1, b"".join(map(_varint, array.shape)))
    else:
        shape = b"".join(_number_field(1, size) for size in array.shape)
    values = _bytes_field(9 if raw else 4, array.tobytes())
    return shape + _number_field(2, kind) + values + _bytes_field(8, name.encode())


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _number_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    low = b""
    while value > 127:
        low, value = low + bytes([value & 127 | 128]), value >> 7
    return low + bytes([value])


def random_(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with every parameter and every statistic drawn anew: no two are alike."""
    generator = torch.Generator().manual_seed(seed)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return model
