"""Registers the operators of namespace `linscope` with torch. What each takes, gives and does, on
any device, is its specification in plain torch; on the CPU and on CUDA devices the compiled kernels
come before it, where they were built and can run. With them go shapes without data (fakes) and
batching (vmap).
"""

from __future__ import annotations

import importlib
import platform
import warnings
from types import ModuleType

import torch

from .batching import vmap_rule
from .checks import checked
from .table import OPERATORS


def _define() -> torch.library.Library:
    """Schemas, and what does the work where no kernel comes before it."""
    library = torch.library.Library("linscope", "DEF")
    for name, operator in OPERATORS.items():
        mutated = ("x",) if operator.in_place else ()
        schema = torch.library.infer_schema(operator.reference, mutates_args=mutated)
        library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        stand_in = checked(operator.check, operator.reference)
        library.impl(name, stand_in, "CompositeExplicitAutograd")
        torch.library.register_fake(
            f"linscope::{name}", checked(operator.check, operator.fake), lib=library
        )
        torch.library.register_vmap(f"linscope::{name}", vmap_rule(operator), lib=library)
    return library


_library = _define()


def _unfit(device: str) -> str | None:
    """Why no compiled kernels for this kind of device can run here, or None."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    if device == "cuda" and torch.version.cuda is None:
        return f"torch {torch.__version__} is a CPU-only build"
    if device == "cpu" and x86 and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX"):
        return "this processor has no AVX2"
    return None


def _load(device: str) -> ModuleType | str:
    """The library of a device's kernels, which registers them, or why there is none."""
    name = f"linscope_cuda._{device}"
    if unfit := _unfit(device):
        return unfit
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return "no kernels were built"
    except ImportError as error:
        if device == "cpu":
            raise
        # Built for CUDA 13, say, while torch is for CUDA 12.
        warnings.warn(
            "linscope_cuda: the compiled CUDA operators cannot be loaded beside torch "
            f"{torch.__version__}, plain torch stands in, slower: {error}",
            stacklevel=2,
        )
        return f"they cannot be loaded: {error}"


# The compiled kernels for each kind of device, or why there are none.
KERNELS = {device: _load(device) for device in ("cpu", "cuda")}


def is_compiled(device: str | torch.device) -> bool:
    """Whether operators on this device are the compiled ones."""
    return isinstance(KERNELS.get(torch.device(device).type), ModuleType)
