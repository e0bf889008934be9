"""A progress bar for whoever looks on, and for nobody else."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm

_IN_NOTEBOOK = any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__)


def bar(progress: bool | None = None, **options: Any) -> tqdm:
    """tqdm's bar, after two seconds, on a terminal or in a notebook; `progress` True: at once and
    anywhere, False: never. `options` are tqdm's.

    with bar(total=100) as shown: shown.update(1)
    """
    seen = _IN_NOTEBOOK or (sys.stderr is not None and sys.stderr.isatty())
    hidden = not (seen if progress is None else progress)
    return tqdm(delay=0 if progress else 2, disable=hidden, **options)
