"""Reads the tensors of an ONNX file, which is a protobuf message, and nothing else of it."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

# Field numbers of onnx.proto: ModelProto.graph, GraphProto.initializer, and those of TensorProto.
_GRAPH, _INITIALIZER = 7, 5
_DIMS, _DATA_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA = 1, 2, 4, 8, 9
_FLOAT32 = 1  # TensorProto.FLOAT
# Wire types of protobuf, and how many bytes follow in those of a fixed size.
_VARINT, _LENGTH = 0, 2
_FIXED = {1: 8, 5: 4}


def onnx_tensors(data: bytes) -> dict[str, Tensor]:
    """The float32 initializers of an ONNX model by name; ValueError for what is no such file."""
    tensors: dict[str, Tensor] = {}
    try:
        for field, graph in _fields(data):
            if field == _GRAPH:
                for entry, message in _fields(_bytes(graph)):
                    if entry == _INITIALIZER:
                        tensors.update(_tensor(_bytes(message)))
    except (IndexError, ValueError) as error:
        raise ValueError(f"this is no whole ONNX file: {error}") from error
    if not tensors:
        raise ValueError("this is no ONNX file that holds float32 tensors")
    return tensors


def _tensor(message: bytes) -> dict[str, Tensor]:
    """{name: tensor} of a TensorProto; nothing where its type is another than float32."""
    shape: list[int] = []
    kind, name, values = 0, "", b""
    for field, value in _fields(message):
        if field == _DIMS:  # packed or one by one: writers differ
            shape += [value] if isinstance(value, int) else _varints(value)
        elif field == _DATA_TYPE:
            kind = value
        elif field == _NAME:
            name = _bytes(value).decode()
        elif field in (_RAW_DATA, _FLOAT_DATA):  # both are little-endian float32 in the end
            values += _bytes(value)
    if kind != _FLOAT32:
        return {}
    if len(values) != 4 * math.prod(shape):
        raise ValueError(f"{name} has {len(values)} bytes for the shape {shape}")
    array = np.frombuffer(values, "<f4").astype(np.float32)
    return {name: torch.from_numpy(array).view(shape)}


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protobuf message: a varint as int, all else as bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _LENGTH:
            size, at = _varint(message, at)
        elif wire in _FIXED:
            size = _FIXED[wire]
        else:
            raise ValueError(f"protobuf has no wire type {wire}")
        if at + size > len(message):
            raise ValueError("it ends within a field")
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _varints(message: bytes) -> list[int]:
    numbers, at = [], 0
    while at < len(message):
        number, at = _varint(message, at)
        numbers.append(number)
    return numbers


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where bytes are wanted")
    return value
