"""Networks are built with random weights: the same each time, and nobody else's."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

RANDOM_SEED = 0


@contextmanager
def seeded() -> Iterator[None]:
    """Draws from a fixed seed within; the caller's random numbers do not move."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        yield
