"""How much memory a computation will take, found by running it without any: on fake tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
_CONVOLUTIONS = {aten.convolution.default, aten.convolution_backward.default}


class Meter(TorchDispatchMode):
    """Bytes of the storages made within that are alive, and the most there were at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.bytes = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        for tensor in made:
            self._add(tensor.untyped_storage())
        scratch = 0
        if func in _CONVOLUTIONS:  # lays its operands out anew
            given = [t for t in args if isinstance(t, Tensor)]
            scratch = sum(t.nbytes for t in (*made, *given))
        self.peak = max(self.peak, self.bytes + scratch)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.alive:
            self.alive[key] = storage.nbytes()
            self.bytes += self.alive[key]
            weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self.bytes -= self.alive.pop(key)


def peak_bytes(computation: Callable[[], object]) -> int:
    """The most bytes that a computation holds at a time, of the tensors that it makes.

    >>> peak_bytes(lambda: torch.zeros(1000).relu())   # 8000
    """
    meter = Meter()
    with FakeTensorMode(allow_non_fake_inputs=True), meter:
        computation()
    return meter.peak
