"""Forward derivatives of a run, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch.autograd import forward_ad

from ..program.derivative import load_forward_derivatives

_ONE = threading.Lock()


@contextmanager
def dual_level() -> Iterator[None]:
    """forward_ad.dual_level, of which torch has one for all threads: they take turns."""
    with _ONE:
        load_forward_derivatives()
        with forward_ad.dual_level():
            yield
