"""The ledger: each output as the sum of what the input and every offset of the network add."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..display import Drawn, Tabular
from ..frozen.interpreter import LinearInterpreter
from ..frozen.offsets import Offset, Offsets, batches, contribution, one_hot, require_interpreter
from ..linalg.probes import flat_indices


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
        lines = [f"{name:{wide}} {_row(values)}" for name, values in parts]
        return "\n".join([*lines, f"{'total':{wide}} {_row(self.total)}"])

    def _columns(self) -> dict[str, list[Any]]:
        values = torch.cat([self.input[None], self.values]).T.tolist()
        return {"entry": ["input", *self.names]} | {
            f"output {i}": column for i, column in enumerate(values)
        }


def ledger(op: LinearInterpreter, outputs: Iterable[Any]) -> Ledger:
    """Splits chosen outputs into F x0 and the contribution of every bias, shift and added constant
    (theorem 1, equation 8), exactly and for any graph, by one reverse pass for each output.

    `outputs` lists flat positions or tuples (c, i, j). Counted are the biases of convolutions and
    linear layers, BatchNorm's beta - gamma mean / std, the c of norms, clamps and sigmoids, added
    and padded constants; calls of one function in one module are one entry. The sum is y to 1e-12
    in float64 and to 1e-5 in float32, relative to the largest contributions. Kept are one offset
    per call and numbers, no gradients. TypeError for what is no LinearInterpreter or no list,
    ValueError for an output out of range.

    >>> found = ls.ledger(op, [op.output.argmax().item()])
    >>> dict(zip(found.names, found.values[:, 0].tolist()))
    """
    require_interpreter("ledger", op)
    flat = flat_indices("ledger", outputs, op.output_shape)
    offsets = Offsets(op)
    names = list(dict.fromkeys(offset.name for offset in offsets.list))
    entry = torch.tensor([names.index(o.name) for o in offsets.list], dtype=torch.long)
    float64 = {"dtype": torch.float64, "device": op.device}
    values = torch.zeros(len(names), len(flat), **float64)
    of_input = torch.zeros(len(flat), **float64)

    def contributions(u: Tensor) -> tuple[Tensor, Tensor]:
        """Of F x0, and of each offset, to the output that u stands for."""
        found = [u.new_zeros((), dtype=torch.float64)] * len(offsets.list)

        def meet(offset: Offset, q: Tensor) -> None:
            found[offset.number] = _inner(q, offset.value)

        row = offsets.meet(u, meet)
        return _inner(row, op.x0), torch.stack(found) if found else row.new_zeros(0).double()

    for start, chosen in batches(flat, op.max_batch or len(flat)):
        place = slice(start, start + len(chosen))
        of_input[place], each = offsets.of_each(contributions, one_hot(chosen, op))
        values[:, place].index_add_(0, entry.to(op.device), each.T)
    return Ledger(names, values, of_input)


_SHOWN = 6  # outputs


def _row(values: Tensor) -> str:
    more = " ..." if len(values) > _SHOWN else ""
    return " ".join(f"{value:11.4g}" for value in values[:_SHOWN].tolist()) + more


def _inner(q: Tensor, c: Tensor) -> Tensor:
    """<q, c>, summed in float64; c broadcasts to q."""
    wide = torch.complex128 if q.is_complex() else torch.float64
    c = c.reshape([1] * (q.dim() - c.dim()) + list(c.shape))
    same = [i for i, extent in enumerate(c.shape) if extent == 1]
    q = q.sum(same, keepdim=True, dtype=wide) if same else q.to(wide)
    product = contribution(q, c.to(wide)).sum()
    return product.real + product.imag if product.is_complex() else product
