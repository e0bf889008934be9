"""Products by the program that was recorded with a tape."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial

import torch
from torch import Tensor

from ..capture.inputs import Inputs
from ..capture.model import Network, precision, settings
from ..capture.provenance import narrowest
from ..capture.record import Record
from ..capture.stamp import Stamp
from ..capture.tape import Tape
from ..capture.tape_folder import Folder
from ..capture.transparent import normal_mode
from ..program import Program, Value
from ..program.line import flattened
from ..program.part import part
from ..program.transposed import NoTranspose
from ..program.views import Untraceable
from ..rules import UnscopedOperation
from ..rules.policy import Policy
from .boxes import Boxes
from .product import linear
from .sources import Name
from .tiles import Tiles


class Taped:
    """Runs the program that was recorded with a tape: no Python of the model runs again."""

    def __init__(
        self,
        x0: Tensor,
        output: Tensor,
        program: Program,
        stamp: Stamp | None = None,
        run: Record | None = None,
    ):
        self.x0, self.output, self.program, self.stamp = x0, output, program, stamp
        self.calls = [] if run is None else run.names  # that depend on the network's input
        self._results = [] if run is None else run.results
        self._steps = [] if run is None else run.steps
        self.seen = {} if run is None else run.seen
        kinds = {v.dtype for v in program.line.followed()}
        self.narrowest = narrowest(kinds if run is None else kinds | run.marks.dtypes)
        self.passes = 1
        self._boxes: dict[Name, Boxes] = {}
        self._peaks: dict[Name, int] = {}
        self._tiles: dict[tuple[Name, int], Tiles] = {}  # of the last product

    def recorded(self) -> Taped:
        return self

    @cached_property
    def _residual(self) -> Tensor:
        self.passes += 1
        with self.running():
            return self.program(torch.zeros_like(self.x0))

    def residual(self) -> Tensor:
        self.require_same()
        return self._residual

    def filter(self, x: Tensor, max_bytes: int) -> Tensor:
        return linear(x, partial(self._filter, max_bytes), partial(self._transpose, max_bytes))

    def transpose(self, u: Tensor, max_bytes: int) -> Tensor:
        return linear(u, partial(self._transpose, max_bytes), partial(self._filter, max_bytes))

    def _filter(self, max_bytes: int, x: Tensor) -> Tensor:
        return self._product("filter", x, max_bytes)

    def _transpose(self, max_bytes: int, u: Tensor) -> Tensor:
        return self._product("transpose", u.to(self.output.dtype), max_bytes)

    def _product(self, name: Name, x: Tensor, max_bytes: int) -> Tensor:
        with self.running():
            x = x.detach().contiguous()
            few = self.boxes(name).probes(x)
            return self._whole(name, x, max_bytes) if few is None else few

    def _whole(self, name: Name, x: Tensor, max_bytes: int) -> Tensor:
        """A product of any probes; in tiles where it does not fit."""
        if self._peak_bytes(name) <= max_bytes:
            return self._program(name)(x)
        tiles = self._in_tiles(name, max_bytes)
        return torch.cat([tiles(one) for one in x.split(1)])

    def _peak_bytes(self, name: Name) -> int:
        if name not in self._peaks:
            self._peaks[name] = self._program(name).peak_bytes
        return self._peaks[name]

    def _in_tiles(self, name: Name, max_bytes: int) -> Tiles:
        key = name, max_bytes
        if key not in self._tiles:
            self._tiles = {key: Tiles(self._program(name).line, max_bytes)}
        return self._tiles[key]

    def _program(self, name: Name) -> Program:
        return self.program.linear if name == "filter" else self.program.T

    def boxes(self, name: Name) -> Boxes:
        """A product of probes that are zero almost everywhere."""
        if name not in self._boxes:
            line = self._program(name).line
            self._boxes[name] = Boxes(line, partial(self._whole, name))
        return self._boxes[name]

    def units(self, name: Name, places: Sequence[int], max_bytes: int) -> tuple[Tensor, int]:
        with self.running():
            return self.boxes(name).units(places, max_bytes)

    def require_same(self) -> None:
        if self.stamp is not None:
            self.stamp.require_same()

    @contextmanager
    def running(self) -> Iterator[None]:
        """What products run within."""
        self.require_same()
        with normal_mode(), precision(self.x0.device):
            try:
                yield
            except (Untraceable, NoTranspose) as error:
                raise UnscopedOperation(str(error)) from error

    def bytes_of_a_probe(self) -> int:
        try:
            return max(self._peak_bytes("filter"), self._peak_bytes("transpose"))
        except NoTranspose:
            return self._peak_bytes("filter")

    def between(self, start: str, stop: str) -> Taped:
        """The network from one module's output to another's."""
        first, last = (self._output(name) for name in (start, stop))
        line, x0, y = part(self.program.line.input, self._steps, first, last, self.x0)
        return self._cut(x0, y, Program(line, self.program.fold))

    def _cut(self, x0: Tensor, y: Tensor, program: Program) -> Taped:
        """A part of the network, whose values have the same numbers."""
        cut = Taped(x0, y, program, self.stamp)
        cut.seen = self.seen
        return cut

    def _output(self, name: str) -> Value:
        calls = self.seen[name, "output"]
        single = len(calls) == 1 and len(calls[0]) == 1
        if not single or calls[0][0].shape[:1] != (1,):
            raise ValueError(
                f"module {name!r} gives no tensor of one sample that depends on the network's "
                f"input, or is called more than once ({len(calls)} times)"
            )
        return calls[0][0]

    @property
    def followed(self) -> list[int]:
        """Those calls whose results depend on the network's input."""
        return [i for i, value in enumerate(self._results) if value is not None]

    def until(self, call: int) -> Taped:
        """The network that ends with its call of that number, flattened."""
        value = self._results[call]
        if value is None:
            raise UnscopedOperation("a call gives what does not depend on the network's input")
        program = Program(flattened(self.program.line.input, self._steps, value))
        with precision(self.x0.device):
            y = program(self.x0)
        return self._cut(self.x0, y, program)


def record(
    network: Network,
    x0: Tensor,
    policy: Policy,
    folder: str | os.PathLike | None = None,
    fold: bool = True,
) -> tuple[Taped, Tape]:
    """A network's program at x0 and its tape, whose decisions lie in the folder's files, if one is
    given.
    """
    files = None if folder is None else Folder(folder)
    known = network.model, policy
    run = Record(*known) if files is None else Record(*known, files.keep)
    source = recorded_by(run, network, x0, fold)
    run.tape.folder = files
    run.tape.inputs = Inputs.kind if network.inputs is None else network.inputs.kind
    return source, run.tape


@torch.no_grad()
def recorded_by(run: Record, network: Network, x0: Tensor, fold: bool = True) -> Taped:
    """The program that a run of the network writes down."""
    network.stamp.require_same()
    with settings(x0.device, network.compiled):
        output = run.run(network, x0)
    network.stamp.after_run(first=True)
    return Taped(x0, output, Program(run.line, fold), network.stamp, run)
