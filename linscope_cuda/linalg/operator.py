"""Matrix-free algebra: what every linear operator of the package can do, written once.

An author writes two products for batches of probes, `_matmat` (F X) and `_rmatmat` (F^T U).
`MatrixFreeOperator` makes a matrix of them: `@`, `.T`, sums and compositions, which are operators
again (and therefore stand here, too), scipy, the dense matrix and the adjoint test.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .probes import Shape, batch_of, gaussian, seeded
from .products import Products

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


class MatrixFreeOperator(Products):
    """A real linear map F between two kinds of tensors, known only by its products.

    `input_shape` and `output_shape` leave out the batch; `shape` is (N, n), F as a matrix over
    flattened tensors. Probes come in batches (K, *input_shape), in the operator's `dtype` and on
    its `device`; at most `max_batch` of them (None: all) are computed at once. Gradients flow
    through the products if they do through `_matmat` and `_rmatmat`.
    A wrong type or dtype raises TypeError, a wrong device or shape ValueError, before any work.

    >>> op = ls.MatrixOperator(torch.eye(12), input_shape=(3, 2, 2))
    >>> op.columns([(0, 1, 1)]).shape
    torch.Size([1, 12])
    """

    __array_ufunc__ = None  # numpy leaves `*` and `@` to this class

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        N, n = self.shape
        raise TypeError(
            f"{type(self).__name__} is no array but the products of an {N} x {n} matrix: "
            "todense() makes a tensor of it, to_scipy() an operator for SciPy"
        )

    def todense(self, max_bytes: int = 2**30) -> Tensor:
        """F as a dense (N, n) tensor, from columns if n <= N and from rows otherwise.

        Raises ValueError, before any work, if it would take more than `max_bytes` bytes.

        >>> op.todense() @ x.flatten()    # F x
        """
        self.require_fits(max_bytes)
        N, n = self.shape
        if n > N:
            return self.T.todense(max_bytes).T
        dense = self._zeros(N, n)
        for k, part in self._responses(self.filter, range(n), self.input_shape):
            dense[:, k : k + len(part)] = part.reshape(-1, N).T
        return dense

    def require_fits(self, max_bytes: int) -> None:
        """ValueError if F as a dense matrix would take more than `max_bytes` bytes."""
        (N, n), size = self.shape, self.shape[0] * self.shape[1] * self.dtype.itemsize
        if size > max_bytes:
            raise ValueError(
                f"a dense {N} x {n} matrix of {self.dtype} takes {size:,} bytes, "
                f"max_bytes allows {max_bytes:,}"
            )

    def __matmul__(self, other: Any) -> Any:
        """F v for a tensor, in the format it comes in, or the composition with an operator.

        (n,) -> (N,), (n, K) -> (N, K), (*input_shape) -> (*output_shape) and
        (K, *input_shape) -> (K, *output_shape). Where `input_shape` has one extent, tensors are
        read as vectors and matrices, (n,) and (n, K), never (K, n), but for a batch of one, (1, n),
        which `op.output` of a classifier is; `filter` takes batches.

        >>> op @ v, op.T @ u, op.T @ op
        """
        if isinstance(other, MatrixFreeOperator):
            return ProductOperator(self, other)
        self._check("@", other)
        given, inner, (N, n) = tuple(other.shape), self.input_shape, self.shape
        shaped = len(inner) != 1
        if shaped and given == inner:
            return self.filter(other[None])[0]
        if given == (n,):
            return self.filter(other.reshape(1, *inner)).reshape(N)
        if not shaped and given == (1, n):
            return self.filter(other)
        if len(given) == 2 and given[0] == n:
            return self.filter(other.T.reshape(-1, *inner)).reshape(-1, N).T
        if shaped and len(given) == len(inner) + 1 and given[1:] == inner:
            return self.filter(other)
        more = f", {inner} or {batch_of(inner)}" if shaped else ""
        raise ValueError(f"@ wants shape ({n},), ({n}, K){more}, was given {given}")

    @property
    def T(self) -> MatrixFreeOperator:
        """F^T as an operator; `op.T.T` is `op`."""
        return TransposedOperator(self)

    @property
    def H(self) -> MatrixFreeOperator:
        """The adjoint, which is `.T`: every operator here is real."""
        return self.T

    def __mul__(self, scalar: Any) -> MatrixFreeOperator:
        if isinstance(scalar, Tensor) and scalar.ndim == 0:
            scalar = scalar.item()
        if not isinstance(scalar, Real):
            raise TypeError(f"* wants a real number, was given {type(scalar).__name__}")
        return SumOperator((float(scalar), self))

    __rmul__ = __mul__

    def __neg__(self) -> MatrixFreeOperator:
        return SumOperator((-1.0, self))

    def __add__(self, other: MatrixFreeOperator) -> MatrixFreeOperator:
        return SumOperator((1.0, self), (1.0, other))

    def __sub__(self, other: MatrixFreeOperator) -> MatrixFreeOperator:
        return SumOperator((1.0, self), (-1.0, other))

    @torch.no_grad()
    def dottest(self, generator: torch.Generator | None = None, trials: int = 3) -> float:
        """Largest relative error of <u, F v> = <F^T u, v> over random u and v, summed in float64.

        Relative to max(|u| |F v|, |F^T u| |v|): near the dtype's resolution where F^T is right,
        far above it where it is not. `generator` None is a fixed seed; `trials` < 1: ValueError.

        >>> op.dottest()    # about 1e-7 in float32, 1e-16 in float64
        """
        if trials < 1:
            raise ValueError(f"dottest wants 1 trial or more, was given {trials}")
        generator = seeded(generator)
        v = gaussian((trials, *self.input_shape), generator, self.device).to(self.dtype)
        u = gaussian((trials, *self.output_shape), generator, self.device).to(self.dtype)
        tensors = v, u, self.filter(v), self.transpose(u)
        v, u, Fv, Ftu = (x.reshape(trials, -1).double() for x in tensors)
        error = ((u * Fv).sum(1) - (Ftu * v).sum(1)).abs()
        scale = torch.maximum(u.norm(dim=1) * Fv.norm(dim=1), Ftu.norm(dim=1) * v.norm(dim=1))
        return torch.where(scale == 0, error, error / scale).max().item()

    def to_scipy(self) -> LinearOperator:
        """F as an (N, n) scipy.sparse.linalg.LinearOperator over flat numpy arrays.

        Arrays are converted to the operator's dtype and device, complex ones raise TypeError;
        float16 and bfloat16 come out as float32.

        >>> u, s, vt = scipy.sparse.linalg.svds(op.to_scipy(), k=3)
        """
        from scipy.sparse.linalg import LinearOperator

        outside = torch.float32 if self.dtype.itemsize < 4 else self.dtype

        def product(op: MatrixFreeOperator, x: np.ndarray) -> np.ndarray:
            if x.dtype.kind == "c":
                raise TypeError(f"a real operator wants real arrays, was given {x.dtype}")
            with torch.no_grad():
                v = torch.tensor(np.ascontiguousarray(x), dtype=op.dtype, device=op.device)
                return (op @ v.reshape(op.shape[1], -1)).to("cpu", outside).numpy()

        F, Ft = partial(product, self), partial(product, self.T)
        products: dict[str, Any] = {"matvec": F, "matmat": F, "rmatvec": Ft, "rmatmat": Ft}
        dtype = torch.empty(0, dtype=outside).numpy().dtype
        return LinearOperator(shape=self.shape, dtype=dtype, **products)

    def spread(self, group: Any = None) -> MatrixFreeOperator:
        """F whose probes the ranks of a torch.distributed group (None: all) divide among them.

        Each rank has its own copy of the operator, asks for the same products of the same probes,
        and gets all results. RuntimeError without a process group, and in a product that lost a
        rank or failed on another; ValueError for a group without this process, and in products
        that differ from rank to rank.

        >>> ls.svd(op.spread(), k=4)    # under torchrun, with init_process_group  # doctest: +SKIP
        """
        from .spread import SpreadOperator

        return SpreadOperator(self, group)


class Composite(MatrixFreeOperator):
    """An operator made of others; the passes are theirs."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *parts: MatrixFreeOperator) -> None:
        first = parts[0]
        for part in parts[1:]:
            if part.dtype != first.dtype:
                raise TypeError(f"operators of one dtype wanted: {first.dtype} and {part.dtype}")
            if part.device != first.device:
                raise ValueError(f"operators on one device wanted: {first.device}, {part.device}")
        limits = [part.max_batch for part in parts if part.max_batch is not None]
        limit = min(limits, default=None)
        super().__init__(input_shape, output_shape, first.dtype, first.device, limit)
        self.parts = parts

    def _leaves(self) -> set[Products]:
        return {leaf for part in self.parts for leaf in part._leaves()}


class TransposedOperator(Composite):
    """F^T of an operator F."""

    def __init__(self, op: MatrixFreeOperator) -> None:
        super().__init__(op.output_shape, op.input_shape, op)

    def _matmat(self, x: Tensor) -> Tensor:
        return self.parts[0].transpose(x)

    def _rmatmat(self, u: Tensor) -> Tensor:
        return self.parts[0].filter(u)

    def _columns(self, flat: Sequence[int]) -> Tensor:
        return self.parts[0]._rows(flat)

    def _rows(self, flat: Sequence[int]) -> Tensor:
        return self.parts[0]._columns(flat)

    @property
    def T(self) -> MatrixFreeOperator:
        return self.parts[0]


class SumOperator(Composite):
    """a F + b G + ..., of terms (a, F), (b, G), ... that share their shapes."""

    def __init__(self, *terms: tuple[float, MatrixFreeOperator]) -> None:
        first = terms[0][1]
        for _, op in terms:
            if not isinstance(op, MatrixFreeOperator):
                raise TypeError(f"+ and - want an operator, were given {type(op).__name__}")
            if (op.input_shape, op.output_shape) != (first.input_shape, first.output_shape):
                raise ValueError(f"+ and - want operators of one shape, were given {first}, {op}")
        super().__init__(first.input_shape, first.output_shape, *(op for _, op in terms))
        self.terms = terms

    def _matmat(self, x: Tensor) -> Tensor:
        return reduce(torch.add, (factor * op.filter(x) for factor, op in self.terms))

    def _rmatmat(self, u: Tensor) -> Tensor:
        return reduce(torch.add, (factor * op.transpose(u) for factor, op in self.terms))


class ProductOperator(Composite):
    """F G, the composition: first G, then F."""

    def __init__(self, left: MatrixFreeOperator, right: MatrixFreeOperator) -> None:
        if left.input_shape != right.output_shape:
            raise ValueError(
                f"@ wants the right operator's output_shape to be {left.input_shape}, "
                f"was given {right.output_shape}"
            )
        super().__init__(right.input_shape, left.output_shape, left, right)

    def _matmat(self, x: Tensor) -> Tensor:
        return self.parts[0].filter(self.parts[1].filter(x))

    def _rmatmat(self, u: Tensor) -> Tensor:
        return self.parts[1].transpose(self.parts[0].transpose(u))
