"""What is installed and what can be used now, as plain data."""

from __future__ import annotations

import platform
from typing import Any

import torch

from .. import zoo
from ..operators import functions as ops
from ..operators import native as _native
from ..zoo import fetch, weights_of


def info() -> dict[str, Any]:
    """Versions, how the operators were built, CUDA, and the zoo's weights, as JSON's types.

    info()["compiled"]
    """
    from .. import __version__

    problem = cuda_problem()
    return {
        "linscope_cuda": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "operators": {device: _operators(device) for device in _native.KERNELS},
        "cuda": {
            "usable": problem is None,
            "problem": problem,
            "devices": [
                torch.cuda.get_device_name(i)
                for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
            ],
        },
        "networks": {name: weights_of(name) for name in zoo.names()},
        "cache": str(fetch.cache_folder()),
    }


def cuda_problem(device: str = "cuda") -> str | None:
    """Why a CUDA device cannot be used now, or None: one of our operators is run there.

    cuda_problem() or "go ahead"
    """
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a CPU-only build"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    count = torch.cuda.device_count()
    if (torch.device(device).index or 0) >= count:
        return f"torch finds {count} CUDA device{'s' if count > 1 else ''}, counted from 0"
    try:
        ops.relu_scope(torch.zeros(1, 8, device=device))
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        return f"a first operator failed there: {str(error).splitlines()[0]}"
    return None


def _operators(device: str) -> dict[str, Any]:
    """How the operators of a kind of device were built, or why plain torch stands in there."""
    kernels = _native.KERNELS[device]
    if isinstance(kernels, str):
        return {"compiled": False, "why": kernels}
    facts = ("torch_version", "compiler", "cuda_version", "architectures")
    return {"compiled": True} | {f: getattr(kernels, f) for f in facts if hasattr(kernels, f)}


def report(facts: dict[str, Any]) -> str:
    """The facts of `info` as lines to read.

    print(report(info()))
    """
    cuda = facts["cuda"]
    rows = [(name, facts[name]) for name in ("linscope_cuda", "python", "torch")]
    rows += [(f"operators on {name}", _built(of)) for name, of in facts["operators"].items()]
    if architectures := facts["operators"]["cuda"].get("architectures"):
        rows.append(("  for GPU architectures", architectures))
    rows.append(("CUDA device", ", ".join(cuda["devices"]) or "none"))
    rows.append(("  can be used now", f"no: {cuda['problem']}" if cuda["problem"] else "yes"))
    rows.append(("cache", facts["cache"]))
    rows.append(("networks", ""))
    rows += [(f"  {name}", f"weights {state}") for name, state in facts["networks"].items()]
    return "\n".join(f"{name:26}{value}".rstrip() for name, value in rows)


def _built(of: dict[str, Any]) -> str:
    if not of["compiled"]:
        return f"plain torch, slower: {of['why']}"
    toolkit = f", CUDA {of['cuda_version']}" if "cuda_version" in of else ""
    return f"compiled ({of['compiler']}{toolkit}, against torch {of['torch_version']})"
