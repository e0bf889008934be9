"""Products by the paper's doubled batch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from ..capture.doubled_batch import DoubledBatch
from ..capture.model import Network, settings
from ..capture.provenance import narrowest
from ..capture.transparent import foreign_functions, normal_mode
from ..rules import UnscopedOperation
from ..rules.policy import Policy
from .certificate import tolerance
from .product import Product
from .sources import Name
from .taped import Taped, record


class Doubled:
    """Runs the doubled batch [x0; x] for each product, and keeps nothing."""

    def __init__(self, network: Network, x0: Tensor, policy: Policy, check: bool):
        self.network, self.x0, self.policy, self.check = network, x0, policy, check
        self.passes = 1
        self.held: set[int] = set()  # numbers of probes beside which x0's answer is its own
        self.tried = {1, 2}  # sizes of a batch that give what single probes give
        self.singly = False
        self._residual: Tensor | None = None
        self.narrowest = x0.dtype
        self.output = self._answer()

    def _answer(self) -> Tensor:
        with torch.no_grad():
            return self._run(self.x0[:0])

    def reenact(self, x: Tensor, stop: int | None = None) -> Tensor:
        """F x + r of one probe, or the result of the network's call of number `stop`."""
        return self._run(x, stop)

    def _run(self, x: Tensor, stop: int | None = None) -> Tensor:
        """The probes' part of the doubled batch, or that of x0 where there is no probe."""
        stamp = self.network.stamp
        first = not len(x)
        if not first:
            stamp.require_same()
        run = DoubledBatch(self.network.model, 1, self.policy, first, True, stop)
        with settings(x.device, self.network.compiled):
            y = run.run(self.network, torch.cat([self.x0, x]))
        stamp.after_run(first)
        if run.gradients:
            _require_own_functions(y)
        if first:
            self.narrowest = narrowest(run.marks.dtypes)
            return y
        self.passes += 1
        if stop is None and (not y.dim() or len(y) != len(x) + 1):
            raise UnscopedOperation("the model is written for one sample; storage='tape' runs one")
        if self.check and stop is None and len(x) not in self.held:
            with torch.no_grad():
                error = (y[:1] - self.output).norm() / self.output.norm()
            if error > torch.finfo(y.dtype).eps ** 0.5:
                raise UnscopedOperation(
                    "x0's answer changes with its probes: the network mixes the samples of a batch,"
                    " or moves them out of the first dimension"
                )
            self.held.add(len(x))
        return y[1:]

    def require_same(self) -> None:
        self.network.stamp.require_same()

    def residual(self) -> Tensor:
        self.require_same()
        if self._residual is None:
            with torch.no_grad():
                self._residual = self._answer_to_zero()
        return self._residual

    def _answer_to_zero(self) -> Tensor:
        r = self._run(torch.zeros_like(self.x0))
        if r.shape != self.output.shape:
            raise UnscopedOperation(
                f"the frozen network answers 0 with {tuple(r.shape)}, the network x0 with "
                f"{tuple(self.output.shape)}"
            )
        return r

    def filter(self, x: Tensor, max_bytes: int) -> Tensor:
        return self._in_batches(self._filter, x)

    def transpose(self, u: Tensor, max_bytes: int) -> Tensor:
        with normal_mode():
            return self._in_batches(self._transpose, u)

    def _filter(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
            return self._run(x) - self.residual()

    def _transpose(self, u: Tensor, keep: bool = False) -> Tensor:
        probe = torch.zeros(len(u), *self.x0.shape[1:], dtype=u.dtype, device=u.device)
        probe.requires_grad_()
        with torch.enable_grad():
            y = self._run(probe)
        return torch.autograd.grad(y, probe, u.to(y.dtype), create_graph=keep)[0]

    def units(self, name: Name, places: Sequence[int], max_bytes: int) -> None:
        return None

    def _in_batches(self, product: Product, x: Tensor) -> Tensor:
        """product(x); where a batch of its size is new, one of its probes is run alone, too."""
        if self.singly and len(x) > 1:
            return torch.cat([product(part) for part in x.split(1)])
        y = product(x)
        if not self.check or len(x) in self.tried:
            return y
        with torch.no_grad():
            sizes = y.detach().reshape(len(y), -1).norm(dim=1)
            at = sizes.argmax()
            if not sizes[at] > 0:
                return y
            self.passes += 1
            alone = product(x[at : at + 1].detach())[0]
            same = (y[at] - alone).norm() <= tolerance(x.dtype) * alone.norm()
        if same:
            self.tried.add(len(x))
            return y
        self.singly = True
        warnings.warn(
            "the network mixes the samples of a batch, or moves them out of the first dimension: "
            "its probes will run one at a time",
            stacklevel=6,
        )
        self.passes += len(x)
        return torch.cat([product(part) for part in x.split(1)])

    def recorded(self) -> Taped:
        self.passes += 1
        return record(self.network, self.x0, self.policy)[0]

    def bytes_of_a_probe(self) -> int:
        return self.recorded().bytes_of_a_probe()


class Differentiable(Doubled):
    """The doubled batch with gradients for the model's weights, through the decisions as well."""

    def _answer(self) -> Tensor:
        with torch.enable_grad():
            return self._run(self.x0[:0])

    def residual(self) -> Tensor:
        return self._answer_to_zero()

    def _filter(self, x: Tensor) -> Tensor:
        y = self._run(torch.cat([x, torch.zeros_like(self.x0)]))
        self.passes += 1
        return y[:-1] - y[-1:]

    def _transpose(self, u: Tensor, keep: bool = False) -> Tensor:
        return super()._transpose(u, keep=torch.is_grad_enabled())


def _require_own_functions(y: Tensor) -> None:
    hidden = next(foreign_functions(y), None)
    if hidden is not None:
        raise UnscopedOperation(
            f"{hidden} cannot be followed backward: it is a custom autograd Function, whose "
            "derivative is its own"
        )
