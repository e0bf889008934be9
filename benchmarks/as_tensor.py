"""An operator as a torch tensor of which products alone are defined: torch.svd_lowrank and
torch.lobpcg, which want a tensor, need no more.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from linscope_cuda import MatrixFreeOperator

aten = torch.ops.aten

# Below __torch_dispatch__ a thread has no autograd, of which F^T u is made.
_ELSEWHERE = ThreadPoolExecutor(1)


class AsTensor(Tensor):
    """A matrix-free operator in the place of a matrix.

    torch.svd_lowrank(AsTensor(op), 20)
    """

    op: MatrixFreeOperator

    # Functions see a tensor; what they compute with comes to __torch_dispatch__.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore

    @staticmethod
    def __new__(cls, op: MatrixFreeOperator) -> AsTensor:
        matrix = Tensor._make_wrapper_subclass(cls, op.shape, dtype=op.dtype, device=op.device)
        matrix.op = op
        return matrix

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore
        if func in (aten.t.default, aten.transpose.int):
            return cls(args[0].op.T)
        if func is aten.mm.default:
            return _ELSEWHERE.submit(_product, *args).result()
        raise NotImplementedError(f"an operator as a tensor has products only, not {func}")


def _product(left: Tensor, right: Tensor) -> Tensor:
    if isinstance(left, AsTensor):
        return left.op @ right
    assert isinstance(right, AsTensor)
    return (right.op.T @ left.mT).mT
