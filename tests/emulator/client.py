"""Sends launches to a worker and reads what it reports."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from . import build
from .worker import Call, Reply


class Fault(NamedTuple):
    """What a kernel did wrong, where (file:line), and in which thread first."""

    what: str
    place: str
    block: int
    thread: int
    count: int

    def __str__(self) -> str:
        return (
            f"{self.what} at {self.place} "
            f"(block {self.block}, thread {self.thread}, {self.count} times)"
        )


class Site(NamedTuple):
    """An instruction of a kernel: `sectors` of 32 bytes moved by `requests` of whole warps.

    `code` is its address; Emulator.place tells its line.
    """

    code: str
    write: bool
    width: int
    requests: int
    lanes: int
    bytes: int
    sectors: int


class Flow(NamedTuple):
    """What a buffer's reads or writes ask for; `distinct` counts every sector once."""

    buffer: str
    write: bool
    bytes: int
    sectors: int
    distinct: int


class Launch(NamedTuple):
    blocks: int
    threads: int  # of a block
    shared_bytes: int


class Result(NamedTuple):
    faults: list[Fault]
    launches: list[Launch]
    sites: list[Site]
    flows: list[Flow]
    contents: list[bytes]


class Crash(Exception):
    """The worker died, as it does under AddressSanitizer; the text is its last words."""


class KernelFault(Exception):
    """A kernel that should be right did something wrong."""


class Emulator:
    """One build of the emulator, in a process that is started again whenever it has died."""

    def __init__(self, name: str):
        self.name = name
        self.library = build.library(name)
        self._worker: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # as long-lived as the worker

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(build.HERE.parent)}
        start = "from emulator.worker import main; main()"
        if self.name == "asan":
            environment["LD_PRELOAD"] = _sanitizer_libraries()
            # Python keeps memory until it exits.
            environment["ASAN_OPTIONS"] = "detect_leaks=0"
            environment["UBSAN_OPTIONS"] = "print_stacktrace=1"
        return subprocess.Popen(
            [sys.executable, "-c", start, str(self.library)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
        )

    def send(self, call: Call) -> Result:
        """What a launch did, right or wrong. Crash if it did not come back."""
        if self._worker is None:
            self._errors.seek(0)
            self._errors.truncate()
            self._worker = self._start()
        assert self._worker.stdin and self._worker.stdout
        try:
            pickle.dump(call, self._worker.stdin)
            self._worker.stdin.flush()
            reply: Reply = pickle.load(self._worker.stdout)
        except (EOFError, BrokenPipeError):
            self.close()
            self._errors.seek(0)
            raise Crash(self._errors.read().decode(errors="replace")) from None
        return self._parse(reply)

    def run(self, call: Call) -> Result:
        """What a launch did; KernelFault if anything about it was wrong."""
        result = self.send(call)
        if result.faults:
            listed = "\n".join(map(str, result.faults))
            raise KernelFault(f"{call.launcher} in the {self.name} build:\n{listed}")
        return result

    def close(self) -> None:
        if self._worker is None:
            return
        for pipe in (self._worker.stdin, self._worker.stdout):
            assert pipe
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._worker.wait()
        self._worker = None

    def _parse(self, reply: Reply) -> Result:
        lines = [line.split("\t") for line in reply.report.splitlines()]
        places = self._places({fields[4] for fields in lines if fields[0] == "fault"})
        faults, launches, sites, flows = [], [], [], []
        for kind, *fields in lines:
            if kind == "fault":
                what, file, line, code, *counts = fields
                place = f"{Path(file).name}:{line}" if file else places[code]
                faults.append(Fault(what, place, *map(int, counts)))
            elif kind == "launch":
                launches.append(Launch(*map(int, fields)))
            elif kind == "site":
                code, write, *counts = fields
                sites.append(Site(code, bool(int(write)), *map(int, counts)))
            else:
                name, write, *counts = fields
                flows.append(Flow(name, bool(int(write)), *map(int, counts)))
        return Result(faults, launches, sites, flows, reply.contents)

    def _places(self, codes: set[str]) -> dict[str, str]:
        return {code: self.place(code) for code in codes}

    @functools.cache  # noqa: B019  # emulators live as long as the tests
    def place(self, code: str) -> str:
        """file:line of a kernel's instruction, seen through the functions inlined there."""
        if code == "0":
            return "an unknown place"
        address = hex(int(code) - 1)  # the address is that behind the instruction
        command = ["addr2line", "-i", "-e", str(self.library), address]
        frames = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )
        names = [Path(frame.split(" ")[0]).name for frame in frames if frame]
        kernels = [name for name in names if ".cuh:" in name]
        return (kernels or names)[0]


def _sanitizer_libraries() -> str:
    compiler = os.environ.get("CXX", "g++").split()
    return ":".join(
        subprocess.run(
            [*compiler, f"-print-file-name=lib{name}.so"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for name in ("asan", "ubsan")
    )


@functools.cache
def emulator(name: str) -> Emulator:
    """The one emulator of a build, compiled at the first use."""
    return Emulator(name)
