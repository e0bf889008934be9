"""A frozen network as an operator, wherever its products come from."""

from __future__ import annotations

from operator import index as as_int
from typing import Any

import torch
from torch import Tensor

from ..capture.model import precision
from ..capture.transparent import normal_mode
from ..linalg.operator import MatrixFreeOperator
from ..program import Program
from ..program.transposed import NoTranspose
from ..rules.policy import Policy
from .sources import Source


class FrozenNetwork(MatrixFreeOperator):
    """A network's filter F and residual r, wherever their products come from."""

    storage = "tape"

    def __init__(self, source: Source, policy: Policy, max_bytes: int):
        self.source, self.policy, self.max_bytes = source, policy, max_bytes
        self.x0, self.output = source.x0, source.output
        super().__init__(self.x0.shape[1:], self.output.shape[1:], self.x0.dtype, self.x0.device)

    def __call__(self, x: Tensor) -> Tensor:
        """F x + r: (K, *input_shape) -> (K, *output_shape)."""
        return self.filter(x) + self.residual

    @property
    def residual(self) -> Tensor:
        """r, the frozen network's answer to 0: (1, *output_shape)."""
        return self.source.residual()

    @property
    def program(self) -> Program:
        """F x + r as a straight line of torch functions; `program.T` is that of F^T u.

        >>> print(op.program)
        """
        return self.source.recorded().program

    def compile(self, **options: Any) -> None:
        """Lets torch.compile(**options) make both products from now on; equal within rounding, and
        compiled when a number of probes first comes.

        ValueError where no program is kept: storage="none".

        >>> op.compile()
        >>> op.filter(x)
        """
        for program in self._kept("compile"):
            program.compile(**options)

    def capture(self, samples: int) -> None:
        """Lets products of so many probes be launched at once, as CUDA graphs.

        ValueError off CUDA, and where no program is kept: storage="none".

        >>> op.capture(8)
        >>> op.filter(torch.randn(8, *op.input_shape, device="cuda"))
        """
        if self.device.type != "cuda":
            raise ValueError(f"capture makes CUDA graphs, the network is on {self.device}")
        for program in self._kept("capture"):
            with normal_mode(), precision(self.device):
                program.capture(samples, self.device)

    def _kept(self, name: str) -> list[Program]:
        """The programs of the products."""
        if self.storage == "none":
            raise ValueError(f"{name} wants a program that is kept, which storage='none' does not")
        try:
            return [self.program.linear, self.program.T]
        except NoTranspose:
            return [self.program.linear]

    @property
    def narrowest(self) -> torch.dtype:
        """The dtype of the fewest digits on the way, which is what products are exact to."""
        return self.source.narrowest

    @property
    def passes(self) -> int:
        return super().passes + self.source.passes

    @property
    def max_batch(self) -> int | None:
        """Probes computed at once: as many as `max_bytes` allows, predicted when first asked for;
        may be set.
        """
        if self._max_batch is None:
            self._max_batch = max(1, self.max_bytes // max(1, self.source.bytes_of_a_probe()))
        return self._max_batch

    @max_batch.setter
    def max_batch(self, value: int | None) -> None:
        self._max_batch = value if value is None else max(1, as_int(value))

    def _matmat(self, x: Tensor) -> Tensor:
        return self.source.filter(x)

    def _rmatmat(self, u: Tensor) -> Tensor:
        return self.source.transpose(u)
