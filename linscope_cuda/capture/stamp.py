"""Which weights a record was made with: products of others would be neither network's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class StaleTape(RuntimeError):
    """A model's weights changed after its decisions were recorded; the message names the first.

    >>> try:
    ...     op.filter(x0)
    ... except ls.StaleTape as error:
    ...     op = ls.LinearInterpreter(model, x0)    # decide anew
    """


class Stamp:
    """The identity and version of every module, parameter and buffer of a model, and of tensors
    that it is called with.

    Sees what is replaced and what is written in place. What is written through `.data` keeps its
    version: that cannot be seen.
    """

    def __init__(self, model: nn.Module, kwargs: Mapping[str, Any]):
        self.places: list[tuple[str, Mapping[str, Any], str]] = [
            (f"{path}.{key}" if path else key, mapping, key)
            for path, module in model.named_modules()
            for mapping in (module._modules, module._parameters, module._buffers)
            for key in mapping
        ]
        self.places += [(key, kwargs, key) for key in kwargs]
        self.state = self._state()
        self.moves = False  # the model's own runs change it: counters, caches

    def require_same(self) -> None:
        """StaleTape where anything changed."""
        name = self._changed()
        if name is not None:
            raise StaleTape(
                f"{name} has changed since the decisions were recorded: they are those of the "
                "network as it was; make a new LinearInterpreter"
            )

    def after_run(self, first: bool) -> None:
        """Takes as the recorded state what a run of the model itself made of it."""
        self.moves = self.moves or (first and self._changed() is not None)
        if self.moves:
            self.state = self._state()

    def __getstate__(self) -> dict[str, Any]:
        """A copy is one of the network as it was recorded, or none."""
        self.require_same()
        return {**vars(self), "state": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.state = self._state()

    def _changed(self) -> str | None:
        for (name, mapping, key), (value, mark) in zip(self.places, self.state, strict=True):
            now = mapping.get(key)
            if now is not value or (mark is not None and _mark(value) != mark):
                return name
        return None

    def _state(self) -> list[tuple[Any, tuple[int, int] | None]]:
        # The tensors are kept: another one could come to lie in the memory of one that is gone.
        values = [mapping.get(key) for _, mapping, key in self.places]
        return [(v, _mark(v) if isinstance(v, Tensor) else None) for v in values]


def _mark(t: Tensor) -> tuple[int, int]:
    """A tensor's version and storage."""
    version = 0 if t.is_inference() else t._version
    return version, t.untyped_storage()._cdata if t.layout == torch.strided else 0
