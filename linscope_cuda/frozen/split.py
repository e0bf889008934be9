"""F as a local part, of small fields, and one of low rank, which reaches everything."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..linalg.operator import MatrixFreeOperator
from ..program import Program
from ..program.split import Split, split
from .network import FrozenNetwork
from .taped import Taped


class LowRank(MatrixFreeOperator):
    """U V, the part of F that goes through `rank` numbers, each a sum over all places.

    V x are the numbers of x, and column k of U what becomes of number k, (N, rank) and (rank, n):
    each takes as many passes as there are numbers, when it is first asked for.
    """

    def __init__(self, network: FrozenNetwork, taken: Program, given: Program):
        super().__init__(
            network.input_shape,
            network.output_shape,
            network.dtype,
            network.device,
            network.max_batch,
        )
        self.source = network.source.recorded()
        self.taken, self.given = taken, given
        self.rank: int = taken.line.output.shape[1]

    def _matmat(self, x: Tensor) -> Tensor:
        return self._run(self.given.linear, self._run(self.taken.linear, x))

    def _rmatmat(self, u: Tensor) -> Tensor:
        return self._run(self.taken.T, self._run(self.given.T, u))

    @cached_property
    def U(self) -> Tensor:
        return self._units(self.given.linear).flatten(1).T

    @cached_property
    def V(self) -> Tensor:
        return self._units(self.taken.T).flatten(1)

    @torch.no_grad()
    def _units(self, program: Program) -> Tensor:
        units = torch.eye(self.rank, dtype=program.line.input.dtype, device=self.device)
        self._passes += self.rank
        parts = units.split(self.max_batch or self.rank)
        return torch.cat([self._run(program, part) for part in parts])

    def _run(self, program: Program, x: Tensor) -> Tensor:
        with self.source.running():
            return program(x.detach().contiguous().to(program.line.input.dtype))


class Parts(NamedTuple):
    """F = `local` + `low_rank`; None where no number is about everything."""

    local: FrozenNetwork
    low_rank: LowRank | None


@torch.no_grad()
def parts(network: FrozenNetwork) -> Parts:
    """The two parts of a frozen network."""
    source = network.source.recorded()
    with source.running():
        found: Split = split(source.program.linear.line)
        fold = source.program.fold
        program = Program(found.local, fold)
        part = Taped(source.x0, program(source.x0), program, source.stamp)
    local = FrozenNetwork(part, network.policy, network.max_bytes)
    if found.taken is None or found.given is None:
        return Parts(local, None)
    return Parts(local, LowRank(network, Program(found.taken, fold), Program(found.given, fold)))
