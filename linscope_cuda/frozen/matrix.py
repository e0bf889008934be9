"""All of F at once, of a network whose fields are small: as a sparse matrix, or a dense one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..program.local.colouring import Columns
from ..progress import bar
from .boxes import Boxes

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_TOGETHER = 2**30  # bytes of answers that are written together


def sparse(boxes: Boxes, max_bytes: int, working: int, progress: bool | None) -> csr_matrix:
    """The matrix whose columns a product answers to unit probes with, row by row.

    ValueError, before any pass, if it would take more than `max_bytes`; products take `working`.
    """
    from scipy.sparse import csr_matrix

    N, n = boxes.shape
    each, channels = boxes.colouring.counts, boxes.colouring.channels
    starts = torch.zeros(N + 1, dtype=torch.int64, device="cpu")
    torch.cumsum(each * channels, 0, out=starts[1:])
    count = int(starts[-1])
    index = torch.int32 if max(count, n) < 2**31 else torch.int64
    kind = _outside(boxes.line.output.dtype)
    size = count * (kind.itemsize + index.itemsize) + (N + 1) * index.itemsize
    if size > max_bytes:
        raise ValueError(
            f"the matrix may have {count:,} entries other than zero, which take {size:,} bytes; "
            f"max_bytes allows {max_bytes:,}; `split()` tells a part of small fields apart from "
            "one of low rank"
        )
    values = torch.empty(count, dtype=kind, device="cpu")
    columns = torch.empty(count, dtype=index, device="cpu")
    for some in _neighbours(_columns(boxes, working, progress), boxes):
        places = [starts[part.rows.cpu()] + part.rank.cpu() for part in some]
        # Neighbours lie side by side in each row: written one after the other they are one line
        # of the processor's cache.
        for c in range(channels):
            for part, at in zip(some, places, strict=True):
                values.put_(at, part.values[c].cpu().to(kind))
            for part, at in zip(some, places, strict=True):
                columns.put_(at, (part.columns + c * part.stride).to("cpu", index))
                at += each[part.rows.cpu()]
    made = csr_matrix((values.numpy(), columns.numpy(), starts.to(index).numpy()), shape=(N, n))
    made.has_sorted_indices = True  # by their ranks
    made.eliminate_zeros()
    return made


def dense(boxes: Boxes, working: int) -> Tensor:
    """The same as a dense tensor, (N, n)."""
    made = torch.zeros(boxes.shape, dtype=boxes.line.output.dtype, device=boxes.device)
    for part in _columns(boxes, working, progress=False):
        for c, values in enumerate(part.values):
            made[part.rows, part.columns + c * part.stride] = values
    return made


def _neighbours(parts: Iterator[Columns], boxes: Boxes) -> Iterator[list[Columns]]:
    """Those of one colour along all dimensions but the last, as many as take little memory."""
    along = boxes.colouring.along
    most = _TOGETHER // (boxes.shape[0] * 8 * (boxes.colouring.channels + 3))
    count = max(1, min(len(along[-1].colours) if along else 1, most))
    while some := list(islice(parts, count)):
        yield some


def _columns(boxes: Boxes, working: int, progress: bool | None) -> Iterator[Columns]:
    def product(x: Tensor) -> Tensor:
        return boxes.few_at_a_time(x, working)

    with bar(progress, total=len(boxes.colouring), desc="F, passes", leave=False) as shown:
        for part in boxes.colouring.columns(product, boxes.like):
            yield part
            shown.update(len(part.values))


def _outside(dtype: torch.dtype) -> torch.dtype:
    """What numpy has of it."""
    return torch.float32 if dtype.itemsize < 4 else dtype


def as_torch(matrix: csr_matrix) -> Tensor:
    """The same as torch's, in the same memory."""
    parts = (torch.from_numpy(np.asarray(t)) for t in (matrix.indptr, matrix.indices, matrix.data))
    return torch.sparse_csr_tensor(*parts, size=matrix.shape, check_invariants=False)
