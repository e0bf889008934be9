"""A row or a column of F and where to look at it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, avg_pool2d

from ..linalg.operator import MatrixFreeOperator

# Coefficients below this share of the largest are invisible in a picture.
_VISIBLE = 0.01
# Of a singular vector, which never quite ends.
_STRIKING = 0.05
# A close-up of more than this share of the picture's side shows nothing new.
_CLOSE_UP = 0.6
_MARGIN = 2

Window = tuple[int, int, int]  # top, left, side


@dataclass(frozen=True, eq=False)
class Field:
    """A row or a column of F, shaped like the tensor it lives in, on the CPU.

    `probe` is the index that was set to one, in the other space. `at` is the place (row, column)
    that belongs to it here and `window` a square (top, left, side) around all that is visible;
    None where there is no such place, or where the field fills the picture.
    """

    probe: tuple[int, ...]
    values: Tensor
    at: tuple[float, float] | None = None
    window: Window | None = None


def row_field(op: MatrixFreeOperator, output: tuple[int, ...], at: tuple[int, int] | None) -> Field:
    """The receptive filter of one output, F^T delta, (C, H, W); `at` is the input's pixel there.

    row_field(op, (1, 72, 72), at=(24, 24))
    """
    values = op.rows([output])[0].cpu()
    return Field(output, values, at, _window(values, at) if at else None)


def column_field(
    op: MatrixFreeOperator, pixel: tuple[int, int], at: tuple[int, int] | None = None
) -> Field:
    """The projective filter of the middle channel (green) of an input pixel, F delta.

    column_field(op, (24, 24), at=(72, 72))
    """
    probe = (op.input_shape[0] // 2, *pixel)
    values = op.columns([probe])[0].cpu()
    return Field(probe, values, at, _window(values, at) if at else None)


def _window(values: Tensor, at: tuple[int, int]) -> Window | None:
    return window(values, (0, 0), tuple(values.shape[1:]), at)


def window(
    values: Tensor, corner: tuple[int, int], extents: tuple[int, ...], at: tuple[int, int]
) -> Window | None:
    """The square around all that is visible of a field and around the place `at`, inside the
    picture; None where that is nearly everything. `values` (C, h, w) begin at `corner` (row,
    column) of a picture of these extents.

    window(values, (19, 19), (48, 48), at=(24, 24))
    """
    size = values.abs().amax(0)
    places = torch.nonzero(size > _VISIBLE * size.max()) + torch.tensor(corner)
    return _around(torch.cat([places, torch.tensor([at])]), extents)


def _around(places: Tensor, extents: tuple[int, ...]) -> Window | None:
    """The square around places (row, column) with a margin, moved inside the picture."""
    low, high = places.amin(0), places.amax(0)
    side = int((high - low).max()) + 1 + 2 * _MARGIN
    if side > _CLOSE_UP * min(extents):
        return None
    top, left = (
        min(max((int(a) + int(b) - side + 1) // 2, 0), extent - side)
        for a, b, extent in zip(low, high, extents, strict=True)
    )
    return top, left, side


def triplet_windows(u: Tensor, v: Tensor) -> tuple[Window, Window] | None:
    """Squares (output's, input's) around all that is visible of a triplet of pictures.

    None where the triplet fills the picture, or the network scales height and width differently.

    triplet_windows(found.U[0], found.V[0])
    """
    (H, W), (h, w) = u.shape[1:], v.shape[1:]
    if H * w != W * h:
        return None
    answered = adaptive_max_pool2d(u.abs().amax(0, keepdim=True)[None], (h, w))[0]
    stimulus = v.abs().amax(0, keepdim=True)
    size = torch.maximum(answered / answered.max(), stimulus / stimulus.max())
    window = _around(torch.nonzero(size[0] > _STRIKING), (h, w))
    if window is None:
        return None
    top, left, side = (round(length * H / h) for length in window)
    return (top, left, side), window


def detailed_pixel(x0: Tensor) -> tuple[int, int]:
    """The pixel of greatest local contrast in the inner half of a picture (C, H, W)."""
    grey = x0.detach().double().cpu().mean(0)[None, None]
    height, width = grey.shape[2:]
    patch = 2 * (min(height, width) // 16) + 1  # odd, so that it has a centre
    mean = avg_pool2d(grey, patch, 1, patch // 2)
    contrast = (avg_pool2d(grey.square(), patch, 1, patch // 2) - mean.square())[0, 0]
    inner = contrast[height // 4 : height - height // 4, width // 4 : width - width // 4]
    i, j = divmod(int(inner.argmax()), inner.shape[1])
    return i + height // 4, j + width // 4


def robust_scale(values: Tensor) -> float:
    """The magnitude that one value in two hundred exceeds: a few pixels would hide the others.

    robust_scale(discussion)
    """
    magnitudes = values.abs().flatten()
    rank = max(1, round(0.995 * magnitudes.numel()))
    return magnitudes.kthvalue(rank).values.item() or magnitudes.max().item() or 1.0
