"""Readers of weight files: bytes in, tensors by name out. None of them can execute code."""

import io
import math
from collections.abc import Sequence

import h5py
import numpy as np
import torch
from torch import Tensor

State = dict[str, Tensor]


# Where training code keeps a model's weights; averaged ones are those that are published.
_CONTAINERS = ("params_ema", "ema_state_dict", "state_dict_ema", "params", "state_dict")
_CONTAINERS += ("model_state_dict", "model_state", "model", "generator", "net_g", "netG", "net")
_CONTAINERS += ("weights", "module", "ema")


def torch_state(data: bytes) -> State:
    """A state dict that torch.save wrote, also within a checkpoint of training code; ValueError,
    which names what was found, when there is none.
    """
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    # Of a damaged or foreign file the unpickler makes nearly any exception.
    except Exception as error:
        raise ValueError("this is no file of tensors that torch.save wrote") from error
    found = _contained(state)
    if found is None:
        raise ValueError(f"this file of torch.save holds no tensors by name: {_described(state)}")
    return found


def _contained(state: object) -> State | None:
    """The tensors by name in a state dict, or in what is put around one."""
    if not isinstance(state, dict):
        return None
    if state and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        return dict(state)
    inner = (_contained(state[key]) for key in _CONTAINERS if key in state)
    return next((found for found in inner if found is not None), None)


def _described(state: object) -> str:
    if not isinstance(state, dict):
        return f"a {type(state).__name__}"
    keys = ", ".join(str(key) for key in list(state)[:6])
    return f"its keys are {keys}{' ...' if len(state) > 6 else ''}" if state else "it is empty"


def keras_arrays(data: bytes) -> State:
    """Every array of an HDF5 file of Keras, by its path, as Keras orders dimensions.

    ValueError for what is no such file.
    """
    arrays: State = {}

    def keep(path: str, entry: object) -> None:
        if isinstance(entry, h5py.Dataset):
            arrays[path] = torch.from_numpy(entry[()])

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            file.visititems(keep)
    except OSError as error:
        raise ValueError(f"this is no whole HDF5 file: {error}") from error
    return arrays


def keras_kernel(weight: Tensor) -> Tensor:
    """A convolution's weight as torch orders it: (height, width, in, out) -> (out, in, h, w)."""
    return weight.permute(3, 2, 0, 1).contiguous()


_NCNN_FLOAT16 = (0x01306B47).to_bytes(4, "little")


def ncnn_layers(data: bytes, shapes: Sequence[Sequence[int]]) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each convolution of an ncnn file, for weights of the given shapes.

    The file holds no names and no shapes: float16 weights behind a mark, padded to four bytes,
    then float32 biases, one layer after the other. The first number of a shape is the outputs.
    ValueError when the file is not made of exactly these.
    """
    layers, at = [], 0
    for shape in shapes:
        if data[at : at + 4] != _NCNN_FLOAT16:
            raise ValueError(f"no float16 weights at byte {at} of the ncnn file")
        size, outputs = math.prod(shape), shape[0]
        ends = at + 4 + (2 * size + 3) // 4 * 4
        if len(data) < ends + 4 * outputs:
            raise ValueError("the ncnn file ends within its weights")
        weight = np.frombuffer(data, "<f2", size, at + 4).astype(np.float32)
        bias = np.frombuffer(data, "<f4", outputs, ends).astype(np.float32)
        layers.append((torch.from_numpy(weight).view(*shape), torch.from_numpy(bias)))
        at = ends + 4 * outputs
    if at != len(data):
        raise ValueError(f"the ncnn file goes on after its {len(shapes)} layers")
    return layers
