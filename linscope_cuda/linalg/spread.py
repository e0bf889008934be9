"""One operator on several processes: the probes of each product are divided among them.

The ranks of a process group stay in step. Each computes as many probes as the others, and before
results are exchanged all tell how they fared: whoever failed, or asked for something else, is no
one that the others wait for.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..files import first_line
from .operator import Composite, MatrixFreeOperator
from .probes import Shape
from .products import Product


class SpreadOperator(Composite):
    """F whose probes the ranks of a process group divide; `op.spread(group)` makes it.

    `passes` are those of this rank; `max_batch` is that of all of them together. Products carry no
    gradients.

        op.spread().filter(x)    # on every rank, with the same x
    """

    def __init__(self, op: MatrixFreeOperator, group: Any = None) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError(
                "spread wants a process group, and torch.distributed is not initialised; call "
                "torch.distributed.init_process_group"
            )
        self.group, self.rank, self.ranks = group, dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise ValueError("spread wants a group of which this process is, was given another one")
        backends = dist.get_backend_config(group)
        if f"{op.device.type}:" not in backends:
            raise ValueError(
                f"spread wants a group that exchanges tensors on {op.device.type}, was given one "
                f"of {backends}"
            )
        super().__init__(op.input_shape, op.output_shape, op)
        if self.max_batch is not None:
            self.max_batch *= self.ranks

    def _matmat(self, x: Tensor) -> Tensor:
        return self._together("filter", self.parts[0].filter, x, self.output_shape)

    def _rmatmat(self, u: Tensor) -> Tensor:
        return self._together("transpose", self.parts[0].transpose, u, self.input_shape)

    @torch.no_grad()
    def _together(self, name: str, product: Product, x: Tensor, due: Shape) -> Tensor:
        share = -(-len(x) // self.ranks)
        places = torch.arange(self.rank * share, (self.rank + 1) * share, device=x.device)
        found, failure = x.new_zeros(share, *due), None
        try:
            found = product(x[places % len(x)])  # where none is left, the first ones again
        except Exception as error:
            failure = error
        self._require_one(name, x, failure)
        return self._exchanged(found).flatten(0, 1)[: len(x)]

    def _require_one(self, name: str, x: Tensor, failure: Exception | None) -> None:
        """Raises `failure`; RuntimeError where another rank has one, ValueError where it was asked
        for another product, or has other probes.
        """
        told = [failure is not None, name == "transpose", len(x), *self.shape, *_sketch(x)]
        everyone = self._exchanged(torch.tensor(told, dtype=torch.float64, device=x.device))
        if failure is not None:
            raise failure
        failed = everyone[:, 0].nonzero().flatten().tolist()
        if failed:
            raise RuntimeError(f"{name} failed on rank {failed[0]} of {self.ranks}, which says why")
        # All hold the same table against its first row: they raise together. Ranks may round apart.
        apart = (everyone - everyone[0]).abs()
        apart[:, -2:] -= torch.finfo(x.dtype).eps ** 0.5 * everyone[0, -2]
        others = (apart > 0).any(1).nonzero().flatten().tolist()
        if others:
            raise ValueError(
                "spread wants the same product of the same probes on every rank, was given "
                f"something else on rank {others[0]} than on rank 0; on rank {self.rank} it is "
                f"{name} of {len(x)} probes"
            )

    def _exchanged(self, own: Tensor) -> Tensor:
        """What each rank has, (ranks, *shape)."""
        everyone = own.new_empty(self.ranks, *own.shape)
        try:
            dist.all_gather(list(everyone), own.contiguous(), group=self.group)
        except RuntimeError as error:
            raise RuntimeError(
                f"one of {self.ranks} ranks was lost, or did not come in time, says rank "
                f"{self.rank}: {first_line(error)}"
            ) from error
        return everyone


def _sketch(x: Tensor) -> list[float]:
    """Two numbers that tell one batch of probes from another: its size first."""
    flat = x.reshape(len(x), -1)
    samples, entries = (torch.arange(n, dtype=torch.float64, device=x.device) for n in flat.shape)
    mixed = (flat @ (entries + 1).cos().to(x.dtype)).double() @ (samples + 1).cos()
    return [torch.linalg.vector_norm(flat, dtype=torch.float64).item(), mixed.item()]
