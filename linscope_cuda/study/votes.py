"""Pixel discussions and votes: all contributions to a score, projected back to the pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..frozen.network import FrozenNetwork
from ..frozen.offsets import Offsets, batches, one_hot, require_interpreter
from ..linalg.probes import flat_indices

# Outputs discussed at once at most: more make no pass quicker, and their pictures take memory.
_MOST = 32


def pixel_discussion(op: FrozenNetwork, outputs: Iterable[Any]) -> Tensor:
    """What each pixel contributes to chosen outputs, (len(outputs), *input_shape).

    For output s: F_s * x0 + sum_k F_k^T (q_ks * b_k), entry by entry; b_k is the k-th call's bias
    or other offset, q_ks the gradient of s with respect to the call's result, F_k the filter from
    the input to there (section 4). It does not sum to the score, because F_k^T is no inverse of
    F_k: it says where in the picture the contributions are seen, not how large they are.
    `outputs` lists flat positions or tuples (c, i, j). Two passes for each, backwards, with no
    activation kept. TypeError for what is no LinearInterpreter or no list, ValueError for an output
    out of range.

    >>> ls.pixel_discussion(op, [281, 282]).shape
    torch.Size([2, 3, 227, 227])
    """
    require_interpreter("pixel_discussion", op)
    flat = flat_indices("pixel_discussion", outputs, op.output_shape)
    return torch.cat([op._zeros(0, *op.input_shape), *(d for _, d in _discussions(op, flat))])


def pixel_parts(op: FrozenNetwork, output: Any, entry: str | None) -> Tensor:
    """One entry's part of the discussion of an output, (*input_shape): F_k^T (q_k * b_k) of the
    calls of that name in `ledger`, or for None the input's own, F_s * x0. All together are
    `pixel_discussion`.

    ValueError for a name that the ledger has not; other errors as `pixel_discussion`.

    pixel_parts(op, 281, ledger(op, [281]).names[0])
    """
    require_interpreter("pixel_parts", op)
    flat = flat_indices("pixel_parts", [output], op.output_shape)
    offsets = Offsets(op)
    names = list(dict.fromkeys(offset.name for offset in offsets.list))
    if entry is not None and entry not in names:
        raise ValueError(f"the ledger has no entry {entry!r}; there are {', '.join(names)}")

    def part(u: Tensor) -> Tensor:
        row, gathered = offsets.gather(u, entry)
        return (row * op.x0 if entry is None else gathered)[0]

    return offsets.of_each(part, one_hot(flat, op))[0]


def pixel_votes(
    op: FrozenNetwork,
    outputs: Iterable[Any] | None = None,
    *,
    per_channel: bool = False,
    absolute: bool = False,
    progress: Callable[[float], object] = lambda share: None,
) -> Tensor:
    """Each pixel's vote, (H, W) int64: the output, as a flat position, to whose discussion it
    contributes most.

    Contributions are signed and summed over the colour channels; `per_channel`: every channel of a
    pixel votes for itself, (C, H, W); `absolute`: the largest magnitude wins. `outputs` are the
    candidates, None: all; of equal contributions the candidate listed first wins, so that a pixel
    which the network does not see votes for it. Memory does not grow with the number of candidates.
    `progress` is told the share that is done. Errors as `pixel_discussion`; ValueError for no
    candidates, or an input without channels.

    >>> votes = ls.pixel_votes(op)
    >>> votes.flatten().bincount().topk(5)    # the most popular labels
    """
    return poll(op, outputs, per_channel=per_channel, absolute=absolute, progress=progress)[0]


def poll(
    op: FrozenNetwork,
    outputs: Iterable[Any] | None = None,
    *,
    per_channel: bool = False,
    absolute: bool = False,
    progress: Callable[[float], object] = lambda share: None,
) -> tuple[Tensor, Tensor]:
    """`pixel_votes`, and the contributions that won them."""
    require_interpreter("pixel_votes", op)
    candidates = range(op.shape[0]) if outputs is None else outputs
    flat = flat_indices("pixel_votes", candidates, op.output_shape)
    if not flat:
        raise ValueError("pixel_votes wants one output or more to vote for")
    if len(op.input_shape) < 2 and not per_channel:
        raise ValueError(f"pixel_votes wants an input (C, ...), this one is {op.input_shape}")
    shape = op.input_shape if per_channel else op.input_shape[1:]
    most = op._zeros(*shape).fill_(-torch.inf)
    votes = torch.full(shape, -1, device=op.device)
    labels = torch.tensor(flat, device=op.device)
    for start, discussions in _discussions(op, flat):
        given = discussions if per_channel else discussions.sum(1)
        best, winner = (given.abs() if absolute else given).max(0)
        # Not `best > most`: where a contribution is NaN the pixel votes all the same.
        votes = torch.where((best <= most) & (votes >= 0), votes, labels[start + winner])
        most = torch.maximum(most, best)
        progress(min(start + len(discussions), len(flat)) / len(flat))
    return votes, most


def _discussions(op: FrozenNetwork, flat: list[int]) -> Iterator[tuple[int, Tensor]]:
    """(start, discussions of flat[start:...]), batch by batch."""
    offsets = Offsets(op)

    def discuss(u: Tensor) -> Tensor:
        row, gathered = offsets.gather(u)
        return (row * op.x0 + gathered)[0]

    size = min(len(flat), _MOST, max(1, (op.max_batch or 2 * _MOST) // 2))
    for start, chosen in batches(flat, max(1, size)):
        op._passes += len(chosen)  # two for each
        yield start, offsets.of_each(discuss, one_hot(chosen, op))
