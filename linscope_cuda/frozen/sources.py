"""Where the products of a frozen network come from: its program, or the doubled batch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor

from ..capture.doubled_batch import DoubledBatch
from ..capture.inputs import Batch
from ..capture.model import Network, precision, settings
from ..capture.provenance import narrowest
from ..capture.record import Record
from ..capture.stamp import Stamp
from ..capture.tape import Tape
from ..capture.tape_folder import Folder
from ..capture.transparent import foreign_functions, normal_mode
from ..program import Program, Value
from ..program.line import flattened
from ..program.part import part
from ..program.transposed import NoTranspose
from ..program.views import Untraceable
from ..rules import UnscopedOperation
from ..rules.policy import Policy
from .boxes import Boxes
from .certificate import tolerance
from .product import Product, linear

Name = Literal["filter", "transpose"]  # of the two products


class Source(Protocol):
    """The products of a frozen network, in batches of any size.

    `passes` are network passes that it spent beside one for each probe.
    """

    x0: Tensor
    output: Tensor
    passes: int
    narrowest: torch.dtype  # of the fewest digits on the way

    def residual(self) -> Tensor:
        """r, (1, *output_shape)."""
        ...

    def filter(self, x: Tensor) -> Tensor:
        """F x."""
        ...

    def transpose(self, u: Tensor) -> Tensor:
        """F^T u."""
        ...

    def units(self, name: Name, places: Sequence[int], max_bytes: int) -> tuple[Tensor, int] | None:
        """The answers of a product to unit probes, at flat places, and the passes that they took;
        None where they are probes like others.
        """
        ...

    def bytes_of_a_probe(self) -> int:
        """Working memory of a product of one probe."""
        ...

    def recorded(self) -> Taped:
        """The same network as a program; recorded anew where nothing is kept."""
        ...

    def require_same(self) -> None:
        """StaleTape where the network's weights have changed since."""
        ...


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
        self._modules = {} if run is None else run.outputs
        kinds = {v.dtype for v in program.line.followed()}
        self.narrowest = narrowest(kinds if run is None else kinds | run.marks.dtypes)
        self.passes = 1
        self._boxes: dict[Name, Boxes] = {}

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

    def filter(self, x: Tensor) -> Tensor:
        return linear(x, self._filter, self._transpose)

    def transpose(self, u: Tensor) -> Tensor:
        return linear(u, self._transpose, self._filter)

    def _filter(self, x: Tensor) -> Tensor:
        return self._product("filter", x)

    def _transpose(self, u: Tensor) -> Tensor:
        return self._product("transpose", u.to(self.output.dtype))

    def _product(self, name: Name, x: Tensor) -> Tensor:
        with self.running():
            x = x.detach().contiguous()
            few = self.boxes(name).probes(x)
            return self._program(name)(x) if few is None else few

    def _program(self, name: Name) -> Program:
        return self.program.linear if name == "filter" else self.program.T

    def boxes(self, name: Name) -> Boxes:
        """A product of probes that are zero almost everywhere."""
        if name not in self._boxes:
            program = self._program(name)
            self._boxes[name] = Boxes(program.line, program)
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
            return max(self.program.linear.peak_bytes, self.program.T.peak_bytes)
        except NoTranspose:
            return self.program.linear.peak_bytes

    def between(self, start: str, stop: str) -> Taped:
        """The network from one module's output to another's."""
        first, last = (self._output(name) for name in (start, stop))
        line, x0, y = part(self.program.line.input, self._steps, first, last, self.x0)
        return Taped(x0, y, Program(line, self.program.fold), self.stamp)

    def _output(self, name: str) -> Value:
        values = self._modules[name]
        if len(values) != 1 or values[0] is None or values[0].shape[:1] != (1,):
            raise ValueError(
                f"module {name!r} gives no tensor of one sample that depends on the network's "
                f"input, or is called more than once ({len(values)} times)"
            )
        return values[0]

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
        return Taped(self.x0, y, program, self.stamp)


class Doubled:
    """Runs the doubled batch [x0; x] for each product, and keeps nothing."""

    def __init__(self, network: Network, x0: Tensor, policy: Policy, check: bool):
        self.network, self.x0, self.policy, self.check = network, x0, policy, check
        self.passes = 1
        self.held: set[int] = set()  # numbers of probes beside which x0's answer is its own
        self.tried = {1, 2}  # sizes of a batch that give what single probes give
        self.singly = False
        self._residual: Tensor | None = None
        self.narrowest = x0.dtype
        self.output = self._answer()

    def _answer(self) -> Tensor:
        with torch.no_grad():
            return self._run(self.x0[:0])

    def reenact(self, x: Tensor, stop: int | None = None) -> Tensor:
        """F x + r of one probe, or the result of the network's call of number `stop`."""
        return self._run(x, stop)

    def _run(self, x: Tensor, stop: int | None = None) -> Tensor:
        """The probes' part of the doubled batch, or that of x0 where there is no probe."""
        stamp = self.network.stamp
        first = not len(x)
        if not first:
            stamp.require_same()
        run = DoubledBatch(self.network.model, 1, self.policy, first, True, stop)
        with settings(x.device, self.network.compiled):
            y = run.run(self.network, torch.cat([self.x0, x]))
        stamp.after_run(first)
        if run.gradients:
            _require_own_functions(y)
        if first:
            self.narrowest = narrowest(run.marks.dtypes)
            return y
        self.passes += 1
        if stop is None and (not y.dim() or len(y) != len(x) + 1):
            raise UnscopedOperation("the model is written for one sample; storage='tape' runs one")
        if self.check and stop is None and len(x) not in self.held:
            with torch.no_grad():
                error = (y[:1] - self.output).norm() / self.output.norm()
            if error > torch.finfo(y.dtype).eps ** 0.5:
                raise UnscopedOperation(
                    "x0's answer changes with its probes: the network mixes the samples of a batch,"
                    " or moves them out of the first dimension"
                )
            self.held.add(len(x))
        return y[1:]

    def require_same(self) -> None:
        self.network.stamp.require_same()

    def residual(self) -> Tensor:
        self.require_same()
        if self._residual is None:
            with torch.no_grad():
                self._residual = self._answer_to_zero()
        return self._residual

    def _answer_to_zero(self) -> Tensor:
        r = self._run(torch.zeros_like(self.x0))
        if r.shape != self.output.shape:
            raise UnscopedOperation(
                f"the frozen network answers 0 with {tuple(r.shape)}, the network x0 with "
                f"{tuple(self.output.shape)}"
            )
        return r

    def filter(self, x: Tensor) -> Tensor:
        return self._in_batches(self._filter, x)

    def transpose(self, u: Tensor) -> Tensor:
        with normal_mode():
            return self._in_batches(self._transpose, u)

    def _filter(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
            return self._run(x) - self.residual()

    def _transpose(self, u: Tensor, keep: bool = False) -> Tensor:
        probe = torch.zeros(len(u), *self.x0.shape[1:], dtype=u.dtype, device=u.device)
        probe.requires_grad_()
        with torch.enable_grad():
            y = self._run(probe)
        return torch.autograd.grad(y, probe, u.to(y.dtype), create_graph=keep)[0]

    def units(self, name: Name, places: Sequence[int], max_bytes: int) -> None:
        return None

    def _in_batches(self, product: Product, x: Tensor) -> Tensor:
        """product(x); where a batch of its size is new, one of its probes is run alone, too."""
        if self.singly and len(x) > 1:
            return torch.cat([product(part) for part in x.split(1)])
        y = product(x)
        if not self.check or len(x) in self.tried:
            return y
        with torch.no_grad():
            sizes = y.detach().reshape(len(y), -1).norm(dim=1)
            at = sizes.argmax()
            if not sizes[at] > 0:
                return y
            self.passes += 1
            alone = product(x[at : at + 1].detach())[0]
            same = (y[at] - alone).norm() <= tolerance(x.dtype) * alone.norm()
        if same:
            self.tried.add(len(x))
            return y
        self.singly = True
        warnings.warn(
            "the network mixes the samples of a batch, or moves them out of the first dimension: "
            "its probes will run one at a time",
            stacklevel=6,
        )
        self.passes += len(x)
        return torch.cat([product(part) for part in x.split(1)])

    def recorded(self) -> Taped:
        self.passes += 1
        return record(self.network, self.x0, self.policy)[0]

    def bytes_of_a_probe(self) -> int:
        return self.recorded().bytes_of_a_probe()


class Differentiable(Doubled):
    """The doubled batch with gradients for the model's weights, through the decisions as well."""

    def _answer(self) -> Tensor:
        with torch.enable_grad():
            return self._run(self.x0[:0])

    def residual(self) -> Tensor:
        return self._answer_to_zero()

    def _filter(self, x: Tensor) -> Tensor:
        y = self._run(torch.cat([x, torch.zeros_like(self.x0)]))
        self.passes += 1
        return y[:-1] - y[-1:]

    def _transpose(self, u: Tensor, keep: bool = False) -> Tensor:
        return super()._transpose(u, keep=torch.is_grad_enabled())


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
    run.tape.folder, run.tape.batch = files, isinstance(network.inputs, Batch)
    return source, run.tape


@torch.no_grad()
def recorded_by(run: Record, network: Network, x0: Tensor, fold: bool = True) -> Taped:
    """The program that a run of the network writes down."""
    network.stamp.require_same()
    with settings(x0.device, network.compiled):
        output = run.run(network, x0)
    network.stamp.after_run(first=True)
    return Taped(x0, output, Program(run.line, fold), network.stamp, run)


def _require_own_functions(y: Tensor) -> None:
    hidden = next(foreign_functions(y), None)
    if hidden is not None:
        raise UnscopedOperation(
            f"{hidden} cannot be followed backward: it is a custom autograd Function, whose "
            "derivative is its own"
        )
