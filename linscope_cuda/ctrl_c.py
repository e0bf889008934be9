"""Ctrl-C while the command's imports run, which take seconds: an end at once, without a traceback.

The package imports this before anything else; in any other program it does nothing.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT  # the exit code that shells give


def leave(*_: object) -> NoReturn:
    """Ends the process at once, with nothing begun that wants an end of its own."""
    os.write(2, b"linscope: interrupted\n")
    os._exit(INTERRUPTED)


def imported() -> None:
    """Lets Ctrl-C be KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_the_command() -> bool:
    words = sys.orig_argv
    by_name = [Path(word).stem for word in words[1:2]] == ["linscope"]
    return by_name or ("-m", "linscope_cuda") in pairwise(words)


# A shell that started it in the background has Ctrl-C ignored, and it stays so.
if _is_the_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, leave)
