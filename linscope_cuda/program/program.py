"""The frozen network as a thing: F x + r as a straight line, and the lines made of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule

from ..display import Tabular
from .batched import batched
from .faster import CudaGraph, Run, compiled
from .folded import folded
from .graph import example, graph_module
from .line import Line
from .linear_part import linear_part
from .live import Live
from .memory import peak_bytes
from .packed import packed
from .simplified import simplified
from .table import columns, table
from .transposed import transposed


class Program(Tabular):
    """y = program(x), a straight line of torch functions, for batches of any size; `print` shows it
    as a table.

    `line` is that of one sample, `linear` the program of F x alone, `T` that of F^T u; for other
    sizes of a batch the line is made when it is first asked for, by torch's batching rules: samples
    cannot mix. The last two sizes are kept.

    >>> op.program.T(u)    # op.transpose(u)
    """

    def __init__(self, line: Line, fold: bool = False):
        self.line = line
        self.fold = fold  # whether convolutions may have weights of their own, see folded, packed
        self._single: Run | None = None
        self._several: dict[int, Run] = {}  # by the size of a batch
        self._run: Callable[[Line], Run] = _by_itself

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) == 1:
            self._single = self._single or self._run(self._one)
            return self._single(x)
        if self._is_constant:
            return self._one(x[:1]).expand(len(x), *self.line.output.shape[1:]).clone()
        if len(x) in self._several:
            return self._several[len(x)](x)
        line, y = batched(self._one, x)
        self._keep(len(x), self._run(simplified(line)))
        return y

    def __reduce__(self):
        return Program, (self.line, self.fold)  # what is made of these is made anew

    def _keep(self, samples: int, run: Run) -> None:
        self._several = dict([*list(self._several.items())[-1:], (samples, run)])

    def compile(self, **options: Any) -> None:
        """Runs by torch.compile(**options) from now on: the same within rounding.

        >>> op.program.linear.compile(mode="max-autotune")
        """
        self._single, self._several = None, {}
        self._run = partial(compiled, **options)

    def capture(self, samples: int) -> None:
        """Runs batches of so many samples as a CUDA graph from now on.

        >>> op.program.linear.capture(8)
        """
        if samples == 1:
            self._single = CudaGraph(self._one)
            return
        start = self.line.input
        x = torch.zeros(samples, *start.shape[1:], dtype=start.dtype, device=start.device)
        self._keep(samples, CudaGraph(simplified(batched(self._one, x)[0])))

    @cached_property
    def _one(self) -> Line:
        line = simplified(self.line)
        return packed(line) if self.fold else line

    @cached_property
    def _is_constant(self) -> bool:
        return not Live(self._one)(self._one.output)

    @cached_property
    def linear(self) -> Program:
        """F x alone, without what the steps add."""
        line = simplified(linear_part(simplified(self.line)))
        return Program(folded(line) if self.fold else line, self.fold)

    @cached_property
    def T(self) -> Program:
        """F^T u; its own transpose is F x.

        NoTranspose, naming the call, for a function that torch cannot differentiate.
        """
        return Program(transposed(self.linear.line), self.fold)

    def to_fx(self) -> GraphModule:
        """The line of one sample as a torch.fx module; its constants share the program's memory.

        >>> torch.compile(op.program.linear.to_fx())
        """
        return graph_module(self._one)

    def export(self) -> ExportedProgram:
        """The same as torch.export has it.

        >>> torch.export.save(op.program.linear.export(), "filter.pt2")
        """
        return torch.export.export(self.to_fx(), (example(self._one),))

    @property
    def nbytes(self) -> int:
        """Of the constants that the steps hold: weights, decisions, and weights of `fold`."""
        lines = [self.line, self._one, self.linear.line, self.linear._one]
        lines += [self.T._one] if "T" in self.__dict__ else []
        held = [t.untyped_storage() for line in lines for t in line.constants()]
        return sum({t._cdata: t.nbytes() for t in held}.values())

    @property
    def peak_bytes(self) -> int:
        """The most bytes that a run for one sample holds at a time."""
        return peak_bytes(self._one)

    def __str__(self) -> str:
        return table(self.line)

    def _columns(self) -> dict[str, list[Any]]:
        return columns(self.line)


def _by_itself(line: Line) -> Run:
    return line
