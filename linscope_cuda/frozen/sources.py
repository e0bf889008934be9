"""Where the products of a frozen network come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .taped import Taped

Name = Literal["filter", "transpose"]  # of the two products


class Source(Protocol):
    """The products of a frozen network, in batches of any size.

    `passes` are network passes that it spent beside one for each probe.
    """

    x0: Tensor
    output: Tensor
    passes: int
    narrowest: torch.dtype  # of the fewest digits on the way

    def residual(self) -> Tensor:
        """r, (1, *output_shape)."""
        ...

    def filter(self, x: Tensor, max_bytes: int) -> Tensor:
        """F x; what does not fit in so many bytes is made in tiles, where that can be."""
        ...

    def transpose(self, u: Tensor, max_bytes: int) -> Tensor:
        """F^T u, likewise."""
        ...

    def units(self, name: Name, places: Sequence[int], max_bytes: int) -> tuple[Tensor, int] | None:
        """The answers of a product to unit probes, at flat places, and the passes that they took;
        None where they are probes like others.
        """
        ...

    def bytes_of_a_probe(self) -> int:
        """Working memory of a product of one probe."""
        ...

    def recorded(self) -> Taped:
        """The same network as a program; recorded anew where nothing is kept."""
        ...

    def require_same(self) -> None:
        """StaleTape where the network's weights have changed since."""
        ...
