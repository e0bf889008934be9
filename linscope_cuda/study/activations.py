"""What each activation inside of a network adds to its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..display import Drawn, Tabular

if TYPE_CHECKING:
    from .ledger import Ledger


@dataclass(frozen=True, eq=False, repr=False)
class Activations(Tabular, Drawn):
    """Outputs as sums over what one module gives, or is given: `values` summed, and `rest`, which
    goes around it, is y at the chosen outputs.

    `activation` is that tensor at x0, and `gradient` (outputs, *shape) that of each output of the
    frozen network with respect to it; `name` is the module's. `shape` is the tensor's own without
    the dimension of the one sample, so that dimension 1 of what a convolution gives is dimension 1
    of `values`; dimensions are counted as in the module's own tensor. Sums are float64.

    >>> found = ls.ledger(op, [(0, 5, 7)], of="layer2")
    >>> found.channels(), found.places(), found.through + found.rest.total
    """

    name: str
    activation: Tensor
    gradient: Tensor
    rest: Ledger
    ahead: int = 1  # dimensions of the module's own tensor in place of which outputs stand

    @property
    def values(self) -> Tensor:
        """What each activation adds to each output, (outputs, *shape), made when asked for."""
        return self.gradient.double() * self.activation.double()

    @property
    def through(self) -> Tensor:
        """What goes through the module, (outputs,)."""
        return self.values.flatten(1).sum(1)

    @property
    def total(self) -> Tensor:
        """y at the chosen outputs, (outputs,)."""
        return self.through + self.rest.total

    def channels(self, dim: int | None = None, groups: int | None = None) -> Tensor:
        """What each channel adds, summed over all places, (outputs, channels); or each of so many
        `groups` of neighbouring channels, as the heads of an attention are, (outputs, groups).

        `dim` is the channels' dimension; None: 1 of a tensor of four dimensions or more, (N, C, H,
        W), the last of another, (N, tokens, C). ValueError for a dimension that is not there, or
        groups of no equal size.

        >>> ls.ledger(op, [281], of="layer3", at="input").channels(groups=3)
        """
        found = self.values.movedim(self._at(dim), 1)
        found = found.flatten(2).sum(2) if found.dim() > 2 else found
        if groups is None:
            return found
        if groups < 1 or found.shape[1] % groups:
            raise ValueError(
                f"groups wants a number that divides {found.shape[1]} channels, was given {groups}"
            )
        return found.unflatten(1, (groups, -1)).sum(2)

    def places(self, dim: int | None = None) -> Tensor:
        """What each place adds, summed over the channels, (outputs, *places): a map over a picture
        or a list over tokens. `dim` as in `channels`.
        """
        return self.values.sum(self._at(dim))

    def _at(self, dim: int | None) -> int:
        """The channels' dimension in `values`."""
        own = self.activation.dim() + self.ahead
        if dim is None:
            dim = 1 if own >= 4 else -1
        found = dim if dim >= 0 else own + dim
        if not self.ahead <= found < own:
            what = f"{self.ahead} ... {own - 1}"
            raise ValueError(f"dim wants {what} of {self.name}, was given {dim}")
        return found + 1 - self.ahead

    def __str__(self) -> str:
        shape = tuple(self.activation.shape)
        names = [self.name, *(f"past it: {name}" for name in ["input", *self.rest.names])]
        parts = [self.through, self.rest.input, *self.rest.values]
        wide = max(map(len, [*names, "total"]))
        lines = [f"{name:{wide}} {row(values)}" for name, values in zip(names, parts, strict=True)]
        return "\n".join([f"{self.name}: {shape}", *lines, f"{'total':{wide}} {row(self.total)}"])

    def _columns(self) -> dict[str, list[Any]]:
        found = self.channels()
        return {"channel": list(range(found.shape[1]))} | {
            f"output {i}": column for i, column in enumerate(found.tolist())
        }


_SHOWN = 6  # outputs


def row(values: Tensor) -> str:
    """The contributions to the first outputs, as a line of text."""
    more = " ..." if len(values) > _SHOWN else ""
    return " ".join(f"{value:11.4g}" for value in values[:_SHOWN].tolist()) + more


def same_shape(gradient: Tensor, activation: Tensor) -> Tensor:
    """An activation in the shape of its gradients' rows."""
    return activation.reshape(gradient.shape[1:]).to(gradient.dtype)
