"""Numbers that sum over all of F, from few products: trace and Frobenius norm, with error bars.

XTrace (Epperly, Tropp and Webber, 2024): an orthonormal basis Q of F omega, for random omega, has
the large part of the trace exactly; what is outside of it is sampled. Each omega is sampled outside
of the basis that all others make, so that none is used twice and the mean is unbiased.
"""

from __future__ import annotations

import math
from operator import index
from typing import NamedTuple

import torch
from torch import Tensor

from .operator import MatrixFreeOperator
from .probes import gaussian, seeded


class Estimate(NamedTuple):
    """A number and the standard deviation that its estimate has, as its samples tell.

    >>> value, error = ls.frobenius(op)
    """

    value: float
    error: float


def trace(
    op: MatrixFreeOperator, samples: int = 64, generator: torch.Generator | None = None
) -> Estimate:
    """The sum of F's diagonal, for an F whose output has the input's shape.

    Takes `samples` products with F, half of them on random vectors; `error` is one standard
    deviation. With as many samples as 2 n or more it is exact, from n columns. `generator` None is
    a fixed seed. For a network with small fields `op.tosparse().diagonal().sum()` is exact.
    TypeError if op is no operator; ValueError for another output shape and for samples < 4.

    >>> ls.trace(op)    # of a denoiser: its effective number of degrees of freedom
    """
    if not isinstance(op, MatrixFreeOperator):
        raise TypeError(f"trace wants a MatrixFreeOperator, was given {type(op).__name__}")
    if op.input_shape != op.output_shape:
        raise ValueError(
            f"trace wants an output of the input's shape {op.input_shape}, not {op.output_shape}"
        )
    return _of_square(op, samples, generator)


def frobenius(
    op: MatrixFreeOperator, samples: int = 64, generator: torch.Generator | None = None
) -> Estimate:
    """|F|, the root of the sum of all entries squared, from the trace of F^T F or F F^T.

    Takes `samples` products with F and as many with F^T. Otherwise as `trace`.

    >>> ls.frobenius(op - op.T).value / ls.frobenius(op).value    # how far F is from symmetric
    """
    if not isinstance(op, MatrixFreeOperator):
        raise TypeError(f"frobenius wants a MatrixFreeOperator, was given {type(op).__name__}")
    N, n = op.shape
    square = _of_square(op @ op.T if n > N else op.T @ op, samples, generator)
    value = math.sqrt(max(square.value, 0.0))
    return Estimate(value, square.error / (2 * value) if value else math.sqrt(square.error))


@torch.no_grad()
def _of_square(op: MatrixFreeOperator, samples: int, generator: torch.Generator | None) -> Estimate:
    count, size = index(samples) // 2, op.shape[0]
    if count < 2:
        raise ValueError(f"samples want to be 4 or more, were given {samples}")
    if count >= size:
        return Estimate(op.columns(range(size)).reshape(size, size).double().trace().item(), 0.0)

    def product(rows: Tensor) -> Tensor:
        return op.filter(rows.to(op.dtype).reshape(-1, *op.input_shape)).flatten(1).double()

    # As rows: omega, A omega, an orthonormal basis of these, A of it.
    omega = gaussian((count, size), seeded(generator), op.device)
    image = product(omega)
    columns, triangle = torch.linalg.qr(image.T)
    basis = columns.T
    of_basis = product(basis)
    # A unit vector for each omega, along the basis and orthogonal to every other's image: the
    # basis without it is that of the others. One that adds nothing to the others has none.
    eps = torch.finfo(op.dtype).eps
    sizes = triangle.diagonal().abs()
    if not sizes.max():
        return Estimate(0.0, 0.0)
    triangle = triangle + torch.diag((sizes <= 10 * eps * sizes.max()) * eps * sizes.max())
    alone = torch.linalg.inv(triangle)
    alone = alone / alone.norm(dim=1, keepdim=True)
    inner = basis @ of_basis.T  # <q_i, A q_j>
    along = omega @ basis.T
    along = along - (along * alone).sum(1, keepdim=True) * alone
    outside = omega - along @ basis
    image_outside = image - along @ of_basis
    # Of normal numbers: as long as all that is outside.
    scale = (size - count + 1) / outside.square().sum(1)
    each = inner.trace() - torch.einsum("ki,ij,kj->k", alone, inner, alone)
    each = each + scale * (outside * image_outside).sum(1)
    return Estimate(each.mean().item(), (each.std() / count**0.5).item())
