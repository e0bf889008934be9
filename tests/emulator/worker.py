"""A process that holds one library of the emulator and runs what it is sent.

A process of its own, so that a kernel which crashes takes no test run with it, and so that
AddressSanitizer is there from the start. Needs nothing but Python.
"""

from __future__ import annotations

import ctypes
import pickle
import sys
from typing import Any, BinaryIO, NamedTuple

INPUT, OUTPUT, SPARSE, IN_PLACE = range(4)


class Buffer(NamedTuple):
    """Memory of a launch: `content` for inputs; of sparse buffers the pieces, by place."""

    name: str
    role: int
    size: int
    offset: int  # bytes from an address aligned as cudaMalloc's
    content: Any = None


class Call(NamedTuple):
    launcher: str
    dtype: int
    integers: list[int]
    reals: list[float]
    buffers: list[Buffer | None]
    order: int = 0
    blocks: tuple[int, int] = (0, 2**63 - 1)
    wanted: list[tuple[int, int, int]] | None = None  # (buffer, place, bytes); None: all outputs
    limits: dict[str, int] | None = None  # of csrc's LAUNCH_LIMITs those that are other than usual


class Reply(NamedTuple):
    report: str
    contents: list[bytes]  # of what is wanted


def _place(library: ctypes.CDLL, buffer: Buffer | None) -> int | None:
    if buffer is None:
        return None
    address = library.emulator_allocate(
        buffer.name.encode(), buffer.role, buffer.size, buffer.offset
    )
    if buffer.role in (INPUT, IN_PLACE):
        ctypes.memmove(address, buffer.content, buffer.size)
    for at, piece in (buffer.content or {}).items() if buffer.role == SPARSE else ():
        ctypes.memmove(address + at, piece, len(piece))
    return address


def _run(library: ctypes.CDLL, call: Call) -> Reply:
    library.emulator_reset()
    library.emulator_schedule(call.order, *call.blocks)
    for name, value in (call.limits or {}).items():
        if not library.emulator_limit(name.encode(), value):
            raise KeyError(f"launches go by no limit {name}")
    addresses = [_place(library, b) for b in call.buffers]
    found = library.emulator_launch(
        call.launcher.encode(),
        call.dtype,
        (ctypes.c_int64 * len(call.integers))(*call.integers),
        (ctypes.c_double * len(call.reals))(*call.reals),
        (ctypes.c_void_p * len(addresses))(*addresses),
    )
    if not found:
        raise KeyError(f"no launcher is called {call.launcher}")
    wanted = call.wanted
    if wanted is None:
        results = (OUTPUT, IN_PLACE)
        wanted = [(i, 0, b.size) for i, b in enumerate(call.buffers) if b and b.role in results]
    contents = [ctypes.string_at((addresses[i] or 0) + at, size) for i, at, size in wanted]
    return Reply(library.emulator_report().decode(), contents)


def _serve(library: ctypes.CDLL, requests: BinaryIO, replies: BinaryIO) -> None:
    while True:
        try:
            call = pickle.load(requests)
        except EOFError:
            return
        pickle.dump(_run(library, call), replies)
        replies.flush()


def _load(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    library.emulator_allocate.restype = ctypes.c_void_p
    library.emulator_allocate.argtypes = [
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_size_t,
        ctypes.c_size_t,
    ]
    library.emulator_schedule.argtypes = [ctypes.c_uint, ctypes.c_int64, ctypes.c_int64]
    library.emulator_limit.argtypes = [ctypes.c_char_p, ctypes.c_int64]
    library.emulator_report.restype = ctypes.c_char_p
    return library


def main() -> None:
    _serve(_load(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
