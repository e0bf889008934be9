"""Where the tensors of the running test are made: on the device that the fixture `device` names."""

from typing import TypeVar

import torch
from torch import Tensor, nn

device = torch.device("cpu")

T = TypeVar("T", Tensor, nn.Module)


def here(x: T) -> T:
    """A test's tensor or network, on the tested device."""
    return x.to(device)
