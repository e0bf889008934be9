"""F as an operator of PyLops, for its solvers and its algebra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..linalg.operator import MatrixFreeOperator

if TYPE_CHECKING:
    from pylops import LinearOperator


def to_pylops(op: MatrixFreeOperator) -> LinearOperator:
    """F as a pylops.LinearOperator from arrays of the input's shape to those of the output's.

    Arrays are converted to the operator's dtype and device, complex ones raise TypeError; float16
    and bfloat16 come out as float32. TypeError for what is no MatrixFreeOperator, ImportError
    without PyLops.

    >>> F = ls.to_pylops(op)
    >>> y = F @ x0.numpy().ravel()
    >>> pylops.optimization.basic.lsqr(F, y, niter=20)
    """
    if not isinstance(op, MatrixFreeOperator):
        raise TypeError(f"to_pylops wants a MatrixFreeOperator, was given {type(op).__name__}")
    try:
        from pylops import LinearOperator
    except ImportError as error:
        raise ImportError(
            "to_pylops wants PyLops: pip install 'linscope_cuda[neighbours]'"
        ) from error
    return LinearOperator(Op=op.to_scipy(), dims=op.input_shape, dimsd=op.output_shape)
