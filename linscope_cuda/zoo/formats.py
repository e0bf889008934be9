"""Readers of weight files: bytes in, tensors by name out. None of them can execute code."""

import io
import pickle

import h5py
import torch
from torch import Tensor

State = dict[str, Tensor]


def torch_state(data: bytes) -> State:
    """A state dict that torch.save wrote; ValueError when it holds anything but tensors."""
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError("this is no file of tensors that torch.save wrote") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError("this file of torch.save holds other things than tensors by name")
    return dict(state)


def keras_arrays(data: bytes) -> State:
    """Every array of an HDF5 file of Keras, by its path, as Keras orders dimensions."""
    arrays: State = {}

    def keep(path: str, entry: object) -> None:
        if isinstance(entry, h5py.Dataset):
            arrays[path] = torch.from_numpy(entry[()])

    with h5py.File(io.BytesIO(data), "r") as file:
        file.visititems(keep)
    return arrays


def keras_kernel(weight: Tensor) -> Tensor:
    """A convolution's weight as torch orders it: (height, width, in, out) -> (out, in, h, w)."""
    return weight.permute(3, 2, 0, 1).contiguous()
