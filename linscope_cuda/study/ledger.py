"""The ledger: each output as the sum of what the input and every offset of the network add."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor

from ..display import Drawn, Tabular
from ..frozen.inside import look_inside
from ..frozen.network import FrozenNetwork
from ..frozen.offsets import Offset, Offsets, batches, contribution, one_hot, require_interpreter
from ..linalg.probes import flat_indices
from .activations import Activations, row, same_shape

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Ledger(Tabular, Drawn):
    """Outputs as sums: `input` + `values.sum(0)` is y at the chosen outputs (equation 8).

    `names` say which function added, and in which module; `values` (entries, outputs) are what it
    added, in the order of the network's calls; `input` (outputs,) is F x0. float64, on the
    interpreter's device.

    >>> found = ls.ledger(op, [0])
    >>> found.total - op.output.flatten()[:1]    # 0 but for rounding
    """

    names: list[str]
    values: Tensor
    input: Tensor

    @property
    def residual(self) -> Tensor:
        """r at the chosen outputs, (outputs,)."""
        return self.values.sum(0)

    @property
    def total(self) -> Tensor:
        """y at the chosen outputs, (outputs,)."""
        return self.input + self.residual

    def __str__(self) -> str:
        wide = max(map(len, ["input", *self.names]))
        parts = zip(["input", *self.names], [self.input, *self.values], strict=True)
        lines = [f"{name:{wide}} {row(values)}" for name, values in parts]
        return "\n".join([*lines, f"{'total':{wide}} {row(self.total)}"])

    def _columns(self) -> dict[str, list[Any]]:
        values = torch.cat([self.input[None], self.values]).T.tolist()
        return {"entry": ["input", *self.names]} | {
            f"output {i}": column for i, column in enumerate(values)
        }


@overload
def ledger(op: FrozenNetwork, outputs: Iterable[Any]) -> Ledger: ...
@overload
def ledger(
    op: FrozenNetwork,
    outputs: Iterable[Any],
    of: str,
    at: str = "output",
    call: int | None = None,
) -> Activations: ...
@overload
def ledger(
    op: FrozenNetwork, outputs: Iterable[Any], of: Sequence[str], at: str = "output"
) -> Ledger: ...
def ledger(
    op: FrozenNetwork,
    outputs: Iterable[Any],
    of: str | Sequence[str] | None = None,
    at: str = "output",
    call: int | None = None,
) -> Ledger | Activations:
    """Splits chosen outputs into F x0 and the contribution of every bias, shift and added constant
    (theorem 1, equation 8), exactly and for any graph, by one reverse pass for each output; or into
    those of what is inside of the network.

    `outputs` lists flat positions or tuples (c, i, j). Counted are the biases of convolutions and
    linear layers, BatchNorm's beta - gamma mean / std, the c of norms, clamps and sigmoids, added
    and padded constants; calls of one function in one module are one entry. The sum is y to 1e-12
    in float64 and to 1e-5 in float32, relative to the largest contributions. Kept are one offset
    per call and numbers, no gradients.

    `of`, the name of a module: y = <q, z> + rest, where z is what it gives, or with `at` "input" is
    given, at its one call or that of number `call`, and q the gradient of the frozen output with
    respect to z, wherever that is read: what each entry of z adds, as `Activations`. The rest is
    what reaches the output past z: F x0's part and the offsets', of those ahead of z the part alone
    that goes around it. "" is the network itself, whose input is x0.

    `of`, a list of names, or of patterns ("blocks.*.attn"): a Ledger that has an entry for each
    call of each module, ahead of the offsets. Each path to the output counts for the last of these
    modules on it, so that all add up to y, and those in a chain leave everything to the last. Of
    the branches of a residual network that is what each adds to the sum itself, and not what
    later ones make of it, which a ledger of that module alone includes: such do not add up.

    The network is recorded once more for `of`. TypeError for what is no LinearInterpreter or no
    list; ValueError for an output out of range, for a module that is not there, is not called, or
    alone is called several times, and where it gives no one tensor that the output is made of.

    >>> found = ls.ledger(op, [op.output.argmax().item()])
    >>> dict(zip(found.names, found.values[:, 0].tolist()))
    >>> ls.ledger(op, [281], of="layer3").channels()[0].topk(2)
    """
    require_interpreter("ledger", op)
    flat = flat_indices("ledger", outputs, op.output_shape)
    if of is None:
        if at != "output" or call is not None:
            raise ValueError("ledger: at= and call= are about a module, which of= names")
        names, values, (of_input,) = _accounts(op, flat, lambda row: (_inner(row, op.x0),))
        return Ledger(names, values, of_input)
    alone = isinstance(of, str)
    if alone and "*" in of:
        raise ValueError(f"ledger wants a list for a pattern, [{of!r}]")
    inside = look_inside(op, [of] if isinstance(of, str) else list(of), at, call)
    op._passes += len(flat)
    if not alone:

        def sums(row: Tensor) -> Tensors:
            pairs = zip(inside.split(row), inside.pieces, strict=True)
            return tuple(_inner(q[0], same_shape(q, z)) for q, z in pairs)

        names, values, (of_input, *through) = _accounts(inside, flat, sums)
        own = [inner.name for inner in inside.inner]
        return Ledger([*own, *names], torch.cat([*(t[None] for t in through), values]), of_input)

    def past(row: Tensor) -> Tensors:
        q, gradient = inside.split(row)
        return _inner(q[0], same_shape(q, inside.pieces[0])), gradient[0]

    names, values, (of_input, gradient) = _accounts(inside, flat, past)
    z = inside.pieces[1]
    shaped = same_shape(gradient, z)
    ahead = z.dim() - shaped.dim()
    return Activations(
        inside.inner[0].name, shaped, gradient, Ledger(names, values, of_input), ahead
    )


def _accounts(
    op: FrozenNetwork, flat: list[int], of_row: Callable[[Tensor], Tensors]
) -> tuple[list[str], Tensor, list[Tensor]]:
    """The names of the offsets and what each adds to outputs (entries, outputs); and what is wanted
    of each output's row (1, *input_shape).
    """
    offsets = Offsets(op)
    names = list(dict.fromkeys(offset.name for offset in offsets.list))
    entry = torch.tensor([names.index(o.name) for o in offsets.list], dtype=torch.long)
    values = torch.zeros(len(names), len(flat), dtype=torch.float64, device=op.device)

    def contributions(u: Tensor) -> tuple[Tensor, Tensors]:
        """Of each offset to the output that u stands for, and what is wanted of its row."""
        found = [u.new_zeros((), dtype=torch.float64)] * len(offsets.list)

        def meet(offset: Offset, q: Tensor) -> None:
            found[offset.number] = _inner(q, offset.value)

        row = offsets.meet(u, meet)
        return torch.stack(found) if found else row.new_zeros(0).double(), of_row(row)

    pieces = list(batches(flat, op.max_batch or len(flat))) or [(0, [])]
    kept = []
    for start, chosen in pieces:
        place = slice(start, start + len(chosen))
        each, rows = offsets.of_each(contributions, one_hot(chosen, op))
        values[:, place].index_add_(0, entry.to(op.device), each.T)
        kept.append(rows)
    return names, values, [torch.cat(parts) for parts in zip(*kept, strict=True)]


def _inner(q: Tensor, c: Tensor) -> Tensor:
    """<q, c>, summed in float64; c broadcasts to q."""
    wide = torch.complex128 if q.is_complex() else torch.float64
    c = c.reshape([1] * (q.dim() - c.dim()) + list(c.shape))
    same = [i for i, extent in enumerate(c.shape) if extent == 1]
    q = q.sum(same, keepdim=True, dtype=wide) if same else q.to(wide)
    product = contribution(q, c.to(wide)).sum()
    return product.real + product.imag if product.is_complex() else product
