"""A scipy LinearOperator as an operator of this package, the way back from `to_scipy`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .operator import MatrixFreeOperator

_DTYPES = {"float64": torch.float64, "float32": torch.float32}


class ScipyOperator(MatrixFreeOperator):
    """What `from_scipy` makes: products are scipy's, on the CPU, and carry no gradients."""

    def __init__(
        self,
        linear: Any,
        input_shape: Iterable[int] | None = None,
        output_shape: Iterable[int] | None = None,
    ) -> None:
        from scipy.sparse.linalg import aslinearoperator

        try:
            linear = aslinearoperator(linear)
        except TypeError:
            raise TypeError(
                "from_scipy wants a scipy LinearOperator, a sparse matrix or a 2-D array, "
                f"was given {type(linear).__name__}"
            ) from None
        # Whole numbers, and an operator that does not say, are computed with as float64.
        dtype = np.dtype(linear.dtype or "float64")
        dtype = np.dtype("float64") if dtype.kind in "iub" else dtype
        if dtype.name not in _DTYPES:
            raise TypeError(f"from_scipy wants real float64 or float32, was given {dtype.name}")
        N, n = linear.shape
        super().__init__(
            (n,) if input_shape is None else input_shape,
            (N,) if output_shape is None else output_shape,
            _DTYPES[dtype.name],
            "cpu",
        )
        if self.shape != (N, n):
            raise ValueError(
                f"an operator of shape ({N}, {n}) does not map {self.input_shape} to "
                f"{self.output_shape}, which is {self.shape}"
            )
        self.linear = linear

    def _matmat(self, x: Tensor) -> Tensor:
        return self._product(self.linear.matmat, x).reshape(-1, *self.output_shape)

    def _rmatmat(self, u: Tensor) -> Tensor:
        try:
            return self._product(self.linear.rmatmat, u).reshape(-1, *self.input_shape)
        except (NotImplementedError, TypeError) as error:  # scipy raises either
            raise TypeError(
                f"transpose wants a LinearOperator with rmatvec, was given {self.linear!r}"
            ) from error

    def _product(self, product: Callable[[np.ndarray], np.ndarray], x: Tensor) -> Tensor:
        flat = x.detach().reshape(len(x), -1).numpy()
        # A copy: the operator may hand out its own memory, or keep ours.
        return torch.tensor(np.asarray(product(flat.T.copy())).T, dtype=self.dtype)


def from_scipy(
    linear: Any,
    input_shape: Iterable[int] | None = None,
    output_shape: Iterable[int] | None = None,
) -> ScipyOperator:
    """A scipy LinearOperator, sparse matrix or array F (N, n) as an operator on the CPU.

    The shapes default to (n,) and (N,); float64 and float32 stay, whole numbers become float64.
    Raises TypeError for anything else, complex ones included, and ValueError for shapes that do not
    multiply to n and N; F^T needs the LinearOperator's rmatvec.

    >>> op = ls.from_scipy(scipy.sparse.random(50, 40, 0.1))
    >>> ls.svd(op, k=3).S
    """
    return ScipyOperator(linear, input_shape, output_shape)
