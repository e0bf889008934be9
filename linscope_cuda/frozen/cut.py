"""Parts of an interpreter's network, as networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..capture.record import Place
from .network import FrozenNetwork
from .taped import Taped

if TYPE_CHECKING:
    from .interpreter import LinearInterpreter


class Between(FrozenNetwork):
    """An interpreter's network from one module's output to another's, as a network."""

    def __init__(self, whole: LinearInterpreter, start: str, stop: str):
        self.whole, self.start, self.stop = whole, start, stop
        super().__init__(self.watching([]), whole.policy, whole.max_bytes)

    @property
    def modules(self) -> dict[str, nn.Module]:
        return self.whole.modules

    def watching(self, places: Sequence[Place]) -> Taped:
        ends = [(name, "output") for name in (self.start, self.stop)]
        return self.whole.watching([*ends, *places]).between(self.start, self.stop)


class CutOff(FrozenNetwork):
    """The first calls of an interpreter's network, as a network."""

    def __init__(self, whole: LinearInterpreter, call: int):
        super().__init__(whole.source.recorded().until(call), whole.policy, whole.max_bytes)
        self.whole, self.call = whole, call

    @property
    def modules(self) -> dict[str, nn.Module]:
        return self.whole.modules

    def watching(self, places: Sequence[Place]) -> Taped:
        return self.whole.watching(places).until(self.call)

    def plain(self) -> Tensor:
        return self.whole.plain(self.call)

    def push_forward(self, v: Tensor) -> Tensor:
        return self.whole.push_forward(v, self.call)

    def pull_back(self, u: Tensor) -> Tensor:
        return self.whole.pull_back(u, self.call)

    def reenact(self, x: Tensor) -> Tensor:
        return self.whole.reenact(x, self.call)
