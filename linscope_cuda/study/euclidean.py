"""How long a tensor is."""

import torch
from torch import Tensor


def norm(x: Tensor) -> float:
    """The Euclidean norm, summed in float64.

    norm(op.residual)
    """
    return torch.linalg.vector_norm(x.double()).item()
