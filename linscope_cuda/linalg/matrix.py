"""A dense matrix as an operator."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from .operator import MatrixFreeOperator


class MatrixOperator(MatrixFreeOperator):
    """A dense (N, n) tensor as an operator; the shapes default to (n,) and (N,).

    Takes the matrix's dtype and device. Raises TypeError if it is not a floating tensor, ValueError
    if it is not 2-D or a shape does not multiply to its extent.

    >>> op = ls.MatrixOperator(torch.randn(10, 12), input_shape=(3, 2, 2))
    """

    def __init__(
        self,
        matrix: Tensor,
        input_shape: Iterable[int] | None = None,
        output_shape: Iterable[int] | None = None,
    ) -> None:
        if not isinstance(matrix, Tensor):
            raise TypeError(f"a matrix wants a torch.Tensor, was given {type(matrix).__name__}")
        if matrix.ndim != 2:
            raise ValueError(f"a matrix wants shape (N, n), was given {tuple(matrix.shape)}")
        N, n = matrix.shape
        inner = (n,) if input_shape is None else input_shape
        outer = (N,) if output_shape is None else output_shape
        super().__init__(inner, outer, matrix.dtype, matrix.device)
        if self.shape != (N, n):
            raise ValueError(
                f"a matrix of shape ({N}, {n}) does not map {self.input_shape} to "
                f"{self.output_shape}, which is {self.shape}"
            )
        self.matrix = matrix

    def _matmat(self, x: Tensor) -> Tensor:
        return (x.reshape(len(x), -1) @ self.matrix.T).reshape(-1, *self.output_shape)

    def _rmatmat(self, u: Tensor) -> Tensor:
        return (u.reshape(len(u), -1) @ self.matrix).reshape(-1, *self.input_shape)
