"""The frozen network as a thing: F x + r as a straight line, and the lines made of it."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule

from .batched import batched
from .folded import folded
from .graph import example, graph_module
from .line import Line
from .linear_part import linear_part
from .memory import peak_bytes
from .packed import packed
from .simplified import simplified
from .table import table
from .transposed import transposed
from .writer import device_of


class Program:
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
        self._of_size: dict[int, Line] = {}

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) == 1:
            return self._one(x)
        if len(x) in self._of_size:
            return self._of_size[len(x)](x)
        line, y = batched(self._one, x)
        self._of_size = dict([*list(self._of_size.items())[-1:], (len(x), simplified(line))])
        return y

    @cached_property
    def _one(self) -> Line:
        line = simplified(self.line)
        return packed(line) if self.fold else line

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
        return torch.export.export(self.to_fx(), (example(self._one, device_of(self._one.steps)),))

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

    def __repr__(self) -> str:
        return table(self.line)
