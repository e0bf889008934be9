"""Registers the operators of namespace `linscope` with torch: the compiled ones, or, where none
were built, their specifications; those stand in for the CPU's compiled loops, too, on a processor
that they are not for. With them go shapes without data (fakes) and batching (vmap).
"""

from __future__ import annotations

import importlib
import platform

import torch

from .batching import vmap_rule
from .checks import checked
from .table import OPERATORS


def _load() -> bool:
    """Loads schemas and CUDA kernels; False where nothing was compiled."""
    try:
        importlib.import_module("linscope_cuda._C")
    except ModuleNotFoundError as error:
        if error.name != "linscope_cuda._C":
            raise
        return False
    return True


def _load_cpu() -> bool:
    """Loads the CPU's loops; False on a processor that they are not for: they need AVX2."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    if x86 and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX"):
        return False
    importlib.import_module("linscope_cuda._cpu")
    return True


COMPILED = _load()
CPU_COMPILED = COMPILED and _load_cpu()


def is_compiled(device: str | torch.device) -> bool:
    """Whether operators on this device are the compiled ones."""
    return COMPILED and (CPU_COMPILED or torch.device(device).type != "cpu")


def _stand_in() -> torch.library.Library:
    """The specifications as torch's operators, for every device or only for the CPU."""
    library = torch.library.Library("linscope", "IMPL" if COMPILED else "DEF")
    for name, operator in OPERATORS.items():
        if not COMPILED:
            mutated = ("x",) if operator.in_place else ()
            schema = torch.library.infer_schema(operator.reference, mutates_args=mutated)
            library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        key = "CPU" if COMPILED else "CompositeExplicitAutograd"
        library.impl(name, checked(operator.check, operator.reference), key)
    return library


if not CPU_COMPILED:
    _library = _stand_in()

for _name, _operator in OPERATORS.items():
    torch.library.register_fake(f"linscope::{_name}", checked(_operator.check, _operator.fake))
    torch.library.register_vmap(f"linscope::{_name}", vmap_rule(_operator))
