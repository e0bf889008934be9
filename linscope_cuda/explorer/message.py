"""Messages between the page and a session: a header of JSON's types, and arrays as they lie in
memory.

    4 bytes: length of the header | header, UTF-8, with spaces to a multiple of 8 | arrays, each so
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..study.errors import BadInput

_ALIGNED = 8
_DTYPES = ("uint8", "int8", "uint16", "int16", "int32", "float32", "float64")


@dataclass(frozen=True, eq=False)
class Message:
    """A header and arrays by name.

    Message({"id": 1, "kind": "home"}).packed()
    """

    header: dict[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def packed(self) -> bytes:
        """As it goes over the wire; ValueError for an array of a dtype that a page cannot read."""
        parts, table, offset = [], [], 0
        for name, array in self.arrays.items():
            if str(array.dtype) not in _DTYPES:
                raise ValueError(f"an array of {array.dtype} cannot be sent, {name!r} is one")
            data = _padded(np.ascontiguousarray(array).tobytes(), b"\0")
            table.append([name, str(array.dtype), list(array.shape), offset])
            parts.append(data)
            offset += len(data)
        text = json.dumps(_finite({**self.header, "arrays": table}), allow_nan=False)
        head = text.encode()
        head += b" " * (-(4 + len(head)) % _ALIGNED)
        return b"".join([struct.pack("<I", len(head)), head, *parts])

    @staticmethod
    def unpacked(data: bytes) -> Message:
        """What was packed; BadInput for anything else."""
        try:
            (length,) = struct.unpack_from("<I", data)
            header = json.loads(data[4 : 4 + length])
            arrays = {}
            for name, dtype, shape, offset in header.pop("arrays"):
                if dtype not in _DTYPES:
                    raise ValueError(dtype)
                count = int(np.prod(shape, dtype=np.int64))
                start = 4 + length + offset
                flat = np.frombuffer(data, dtype, count, start)
                arrays[name] = flat.reshape(shape)
        except (ValueError, TypeError, KeyError, AttributeError, struct.error) as error:
            raise BadInput("a message that is none of the explorer's was sent") from error
        return Message(header, arrays)


def _padded(data: bytes, filler: bytes) -> bytes:
    return data + filler * (-len(data) % _ALIGNED)


def _finite(value: Any) -> Any:
    """The same with null for what JSON cannot say: nan and infinity."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
