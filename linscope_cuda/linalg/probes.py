"""Probes: random ones that repeat, and unit ones by their place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import index as as_int
from typing import Any

import torch
from torch import Tensor

Shape = tuple[int, ...]


def seeded(generator: torch.Generator | None) -> torch.Generator:
    """The generator given, or a fresh one with a fixed seed, so that results repeat."""
    if generator is None:
        return torch.Generator().manual_seed(0)
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator wants a torch.Generator, was given {type(generator).__name__}")
    return generator


def gaussian(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Normal float64 numbers, drawn where the generator lives: the same on every device."""
    drawn = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64)
    return drawn.to(device)


def batch_of(shape: Shape) -> str:
    """A batch of `shape` as messages write it: (K, 3, 8, 8)."""
    return f"({', '.join(map(str, ('K', *shape)))}{'' if shape else ','})"


def flat_indices(name: str, indices: Iterable[Any], shape: Shape) -> list[int]:
    if isinstance(indices, tuple) or not isinstance(indices, Iterable):
        # (0, 3, 4) may mean three positions or one: a list says which.
        raise TypeError(f"{name} wants a list such as [5] or [(c, i, j)], was given {indices!r}")
    flat = []
    for entry in indices.tolist() if hasattr(indices, "tolist") else indices:  # type: ignore
        shaped = isinstance(entry, tuple | list)
        place = tuple(map(as_int, entry if shaped else (entry,)))
        extents = shape if shaped else (math.prod(shape),)
        if len(place) != len(extents):
            raise ValueError(f"{name} wants {len(extents)} numbers per tuple, was given {entry}")
        position = 0
        for i, extent in zip(place, extents, strict=True):
            if not -extent <= i < extent:
                raise ValueError(f"{name}: index {entry} lies outside {shape}")
            position = position * extent + i % extent
        flat.append(position)
    return flat
