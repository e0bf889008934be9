"""F by its two products, F X and F^T U: for batches of probes, checked, counted and in chunks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import index as as_int
from typing import Any

import torch
from torch import Tensor

from .opaque import opaque
from .probes import Shape, batch_of, flat_indices

Product = Callable[[Tensor], Tensor]

# Unit probes made at a time where the operator itself sets no limit.
_IMPULSES = 256


class Products(ABC):
    """What `MatrixFreeOperator` stands on: shapes, dtype and device, the products and what they
    answer to unit probes, the rows and columns of F.
    """

    def __init__(
        self,
        input_shape: Iterable[int],
        output_shape: Iterable[int],
        dtype: torch.dtype,
        device: torch.device | str,
        max_batch: int | None = None,
    ) -> None:
        self.input_shape: Shape = tuple(map(as_int, input_shape))
        self.output_shape: Shape = tuple(map(as_int, output_shape))
        self.shape = (math.prod(self.output_shape), math.prod(self.input_shape))
        if min(self.input_shape + self.output_shape, default=1) < 1:
            raise ValueError(
                "an operator wants extents of 1 or more, was given "
                f"input_shape {self.input_shape} and output_shape {self.output_shape}"
            )
        if not dtype.is_floating_point:
            raise TypeError(f"an operator wants a real floating dtype, was given {dtype}")
        self.dtype = dtype
        # "cuda" and "cuda:0" must compare equal; a tensor's device has its index.
        self.device = torch.empty(0, device=device).device
        self.max_batch = max_batch
        self._passes = 0

    @abstractmethod
    def _matmat(self, x: Tensor) -> Tensor:
        """F x, (K, *input_shape) -> (K, *output_shape), K >= 1, x already checked."""

    @abstractmethod
    def _rmatmat(self, u: Tensor) -> Tensor:
        """F^T u, (K, *output_shape) -> (K, *input_shape), K >= 1, u already checked."""

    @property
    def max_batch(self) -> int | None:
        """Probes computed at once, or None for all of them; may be set, or overridden."""
        return self._max_batch

    @max_batch.setter
    def max_batch(self, value: int | None) -> None:
        if value is not None and as_int(value) < 1:
            raise ValueError(f"max_batch wants 1 or more, or None, was given {value}")
        self._max_batch = value

    @property
    def passes(self) -> int:
        """Network passes spent so far, in samples; sums, products and `.T` count their parts."""
        return sum(leaf._passes for leaf in self._leaves())

    def _leaves(self) -> set[Products]:
        """The operators whose passes count here, each once."""
        return {self}

    def __repr__(self) -> str:
        N, n = self.shape
        name, dtype = type(self).__name__, str(self.dtype).removeprefix("torch.")
        shapes = f"{self.input_shape} -> {self.output_shape}"
        return f"{name}({shapes}, {N} x {n}, {dtype}, {self.device})"

    def filter(self, x: Tensor) -> Tensor:
        """F x, the filter's part of y = F x + r: (K, *input_shape) -> (K, *output_shape).

        >>> y = op.filter(torch.randn(5, *op.input_shape))
        """
        return self._chunked("filter", self._matmat, x, self.input_shape, self.output_shape)

    def transpose(self, u: Tensor) -> Tensor:
        """F^T u, the paper's eq. 6: (K, *output_shape) -> (K, *input_shape).

        >>> x = op.transpose(torch.randn(5, *op.output_shape))
        """
        return self._chunked("transpose", self._rmatmat, u, self.output_shape, self.input_shape)

    @opaque
    def _chunked(self, name: str, product: Product, x: Tensor, given: Shape, due: Shape) -> Tensor:
        self._check(name, x)
        if x.ndim != len(given) + 1 or x.shape[1:] != given:
            raise ValueError(f"{name} wants shape {batch_of(given)}, was given {tuple(x.shape)}")
        if len(x) == 0:
            return x.new_empty((0, *due))
        results = []
        for part in [x] if len(x) == 1 else x.split(self.max_batch or len(x)):
            self._passes += len(part)
            results.append(product(part))
            if results[-1].shape != (len(part), *due):
                raise RuntimeError(
                    f"{type(self).__name__}: {name} of {len(part)} probes came out as "
                    f"{tuple(results[-1].shape)}, {batch_of(due)} was due"
                )
        return results[0] if len(results) == 1 else torch.cat(results)

    def _check(self, name: str, x: Any) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} wants a torch.Tensor, was given {type(x).__name__}")
        if x.dtype != self.dtype:
            raise TypeError(f"{name} wants {self.dtype}, was given {x.dtype}")
        if x.device != self.device:
            raise ValueError(f"{name} wants a tensor on {self.device}, was given one on {x.device}")

    @opaque
    def columns(self, indices: Iterable[Any]) -> Tensor:
        """Projective filters: columns k of F, F delta_k, as (len(indices), *output_shape).

        `indices` lists flat positions or tuples (c, i, j) of the input, from the end
        where they are negative; one outside: ValueError.

        >>> op.columns([7, (0, 1, 1)])
        """
        flat = flat_indices("columns", indices, self.input_shape)
        return self._columns(flat)

    def _columns(self, flat: Sequence[int]) -> Tensor:
        """Columns at flat positions, already checked."""
        responses = [part for _, part in self._responses(self.filter, flat, self.input_shape)]
        return torch.cat([self._zeros(0, *self.output_shape), *responses])

    @opaque
    def rows(self, indices: Iterable[Any]) -> Tensor:
        """Receptive filters: rows k of F, F^T delta_k, as (len(indices), *input_shape).

        `indices` lists flat positions or tuples (c, i, j) of the output, from the end
        where they are negative; one outside: ValueError.

        >>> op.rows([281])
        """
        flat = flat_indices("rows", indices, self.output_shape)
        return self._rows(flat)

    def _rows(self, flat: Sequence[int]) -> Tensor:
        """Rows at flat positions, already checked."""
        responses = [part for _, part in self._responses(self.transpose, flat, self.output_shape)]
        return torch.cat([self._zeros(0, *self.input_shape), *responses])

    def _responses(
        self, product: Product, flat: Sequence[int], shape: Shape
    ) -> Iterator[tuple[int, Tensor]]:
        """(start, responses to the unit probes at flat[start:...]), chunk by chunk."""
        step = self.max_batch or _IMPULSES
        for start in range(0, len(flat), step):
            positions = torch.tensor(flat[start : start + step], device=self.device)
            probes = self._zeros(len(positions), math.prod(shape))
            yield start, product(probes.scatter_(1, positions[:, None], 1.0).reshape(-1, *shape))

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)
