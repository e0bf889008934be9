"""A frozen network as an operator, wherever its products come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import index as as_int
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..capture.model import precision
from ..capture.record import Place
from ..capture.transparent import normal_mode
from ..display import Drawn
from ..linalg.operator import MatrixFreeOperator
from ..linalg.probes import flat_indices
from ..program import Program
from ..program.local.box import Box
from ..program.transposed import NoTranspose
from ..rules.policy import Policy
from . import matrix
from .boxes import Boxes
from .sources import Name, Source
from .taped import Taped

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class FrozenNetwork(Drawn, MatrixFreeOperator):
    """A network's filter F and residual r, wherever their products come from."""

    storage = "tape"

    def __init__(self, source: Source, policy: Policy, max_bytes: int):
        self.source, self.policy, self.max_bytes = source, policy, max_bytes
        self.x0, self.output = source.x0, source.output
        super().__init__(self.x0.shape[1:], self.output.shape[1:], self.x0.dtype, self.x0.device)

    def __str__(self) -> str:
        return "\n".join([MatrixFreeOperator.__repr__(self), *self._about()])

    def _about(self) -> list[str]:
        """What else there is to say, without a pass."""
        return [f"{self.policy!r}, {self.passes:,} passes so far"]

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
                program.capture(samples)

    def _kept(self, name: str) -> list[Program]:
        """The programs of the products."""
        if self.storage == "none":
            raise ValueError(f"{name} wants a program that is kept, which storage='none' does not")
        try:
            return [self.program.linear, self.program.T]
        except NoTranspose:
            return [self.program.linear]

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The model's modules by name; none of a network without its model."""
        return {}

    def watching(self, places: Sequence[Place]) -> Taped:
        """The network recorded anew, with the values that modules are given, or give: which value
        is whose, a record does not keep. As it was recorded, if nobody asks for any.
        """
        return self.source.recorded()

    @property
    def narrowest(self) -> torch.dtype:
        """The dtype of the fewest digits on the way, which is what products are exact to."""
        return self.source.narrowest

    @property
    def passes(self) -> int:
        """Network passes spent so far, in samples: those of products and those of the record."""
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

    def support(
        self, *, rows: Iterable[Any] | None = None, columns: Iterable[Any] | None = None
    ) -> list[Box]:
        """The boxes outside of which rows, or columns, of F are zero, as (start, end) along each
        dimension: the theoretical fields, by the steps alone; (0, 0) for one that is zero.

        Positions are those of `rows` and `columns`; ValueError for one outside, or unless one of
        the two is given.

        >>> op.support(columns=[(0, 24, 24)])    # [((0, 3), (57, 90), (57, 90))]
        """
        with self._asked("support", rows, columns) as (boxes, places):
            return list(map(boxes.support, places))

    @torch.no_grad()
    def boxes(
        self, *, rows: Iterable[Any] | None = None, columns: Iterable[Any] | None = None
    ) -> list[tuple[Box, Tensor]]:
        """Rows, or columns, of F where they may be other than zero: for each its box and what is
        there, which takes no time for all the zeros around. Positions and errors are those of
        `support`.

        >>> [(box, column)] = op.boxes(columns=[(0, 24, 24)])    # ((0, 3), (57, 90), (57, 90))
        """
        with self._asked("boxes", rows, columns) as (boxes, places):
            made, passes = boxes.within(places, self.max_bytes)
        self._passes += passes
        return made

    def cost(
        self, *, rows: Iterable[Any] | None = None, columns: Iterable[Any] | None = None
    ) -> float:
        """The passes that rows, or columns, of F are predicted to take: in boxes a part of one,
        together one for many, or one each. Positions and errors are those of `support`.

        >>> op.cost(columns=[(0, 24, 24)])    # 0.03
        """
        with self._asked("cost", rows, columns) as (boxes, places):
            return boxes.predicted(places)

    @contextmanager
    def _asked(
        self, name: str, rows: Iterable[Any] | None, columns: Iterable[Any] | None
    ) -> Iterator[tuple[Boxes, list[int]]]:
        """The product that answers with rows, or columns, and their flat places, as it runs."""
        if (rows is None) == (columns is None):
            raise ValueError(f"{name} wants rows= or columns=, one of the two")
        turned = rows is not None
        shape = self.output_shape if turned else self.input_shape
        asked: Any = rows if turned else columns
        places = flat_indices("rows" if turned else "columns", asked, shape)
        source = self.source.recorded()
        with source.running():
            yield source.boxes("transpose" if turned else "filter"), places

    @torch.no_grad()
    def tosparse(
        self, layout: str = "scipy", max_bytes: int = 2**31, progress: bool | None = None
    ) -> csr_matrix | Tensor:
        """F as an (N, n) sparse matrix by rows: a scipy.sparse.csr_matrix, or with `layout` "torch"
        a torch tensor of that layout, on the CPU; float16 and bfloat16 as float32.

        Probes whose fields do not meet share a pass: as many passes as the field of an entry has
        places, of rows or of columns, whichever are fewer. ValueError, before any pass, if it may
        take more than `max_bytes` bytes. A bar shows passes after two seconds (`progress` True: at
        once, False: never).

        >>> F = op.tosparse()
        >>> F @ x.flatten()    # F x
        """
        if layout not in ("scipy", "torch"):
            raise ValueError(f"layout wants 'scipy' or 'torch', was given {layout!r}")
        source = self.source.recorded()
        with source.running():
            boxes, turned = self._sides(source)
            made = matrix.sparse(boxes, max_bytes, self.max_bytes, progress)
            self._passes += len(boxes.colouring)
        made = made.T.tocsr() if turned else made
        return matrix.as_torch(made) if layout == "torch" else made

    @torch.no_grad()
    def todense(self, max_bytes: int = 2**30) -> Tensor:
        """F as a dense (N, n) tensor, from few passes where fields are small (`tosparse`).

        Raises ValueError, before any work, if it would take more than `max_bytes` bytes.
        """
        self.require_fits(max_bytes)
        if self.storage != "none" and len(self.input_shape) > 1 and len(self.output_shape) > 1:
            with self.source.recorded().running():
                boxes, turned = self._sides(self.source.recorded())
                if not boxes.is_global and 2 * len(boxes.colouring) < min(self.shape):
                    self._passes += len(boxes.colouring)
                    made = matrix.dense(boxes, self.max_bytes)
                    return (made.T if turned else made).to(self.dtype)
        return super().todense(max_bytes)

    def _sides(self, source: Taped) -> tuple[Boxes, bool]:
        """The product that needs fewer passes for all of F, and whether it is F^T u."""
        columns = source.boxes("filter")
        try:
            rows = source.boxes("transpose")
        except NoTranspose:
            return columns, False
        if columns.is_global and rows.is_global:
            return (rows, True) if self.shape[0] < self.shape[1] else (columns, False)
        if columns.is_global or rows.is_global:
            return (rows, True) if columns.is_global else (columns, False)
        turned = len(rows.colouring) < len(columns.colouring)
        return (rows if turned else columns), turned

    def _columns(self, flat: Sequence[int]) -> Tensor:
        return self._units("filter", flat, super()._columns)

    def _rows(self, flat: Sequence[int]) -> Tensor:
        return self._units("transpose", flat, super()._rows)

    @torch.no_grad()
    def _units(
        self, name: Name, flat: Sequence[int], otherwise: Callable[[Sequence[int]], Tensor]
    ) -> Tensor:
        found = self.source.units(name, flat, self.max_bytes)
        if found is None:
            return otherwise(flat)
        made, passes = found
        self._passes += passes
        return made.to(self.dtype)

    def _matmat(self, x: Tensor) -> Tensor:
        return self.source.filter(x, self.max_bytes)

    def _rmatmat(self, u: Tensor) -> Tensor:
        return self.source.transpose(u, self.max_bytes)
