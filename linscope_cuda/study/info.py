"""What is installed and what can be used now, as plain data."""

from __future__ import annotations

import platform
from typing import Any

import torch

from .. import zoo
from ..operators import functions as ops
from ..operators import native as _native
from ..zoo import fetch, weights_of

_BUILD_FACTS = ("torch_version", "compiler", "cuda_version", "cuda_architectures")


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
        "compiled": _native.COMPILED,
        "cpu_compiled": _native.CPU_COMPILED,
        "build": _build(),
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
    if _native.COMPILED and not _build()["cuda_version"]:
        return "linscope_cuda was built without CUDA kernels"
    try:
        ops.relu_scope(torch.zeros(1, 8, device=device))
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        return f"a first operator failed there: {str(error).splitlines()[0]}"
    return None


def _build() -> dict[str, str]:
    if not _native.COMPILED:
        return dict.fromkeys(_BUILD_FACTS, "")
    from .. import _C  # pyright: ignore[reportAttributeAccessIssue]

    return {name: getattr(_C, name) for name in _BUILD_FACTS}


def report(facts: dict[str, Any]) -> str:
    """The facts of `info` as lines to read.

    print(report(info()))
    """
    build, cuda = facts["build"], facts["cuda"]
    if facts["compiled"]:
        kernels = f"CUDA {build['cuda_version']}" if build["cuda_version"] else "CPU only"
        compiled = f"compiled ({kernels}, compiler {build['compiler']})"
    else:
        compiled = "not compiled: reference operators on plain torch, slower"
    rows = [
        ("linscope_cuda", facts["linscope_cuda"]),
        ("python", facts["python"]),
        ("torch", facts["torch"]),
        ("operators", compiled),
    ]
    if facts["compiled"]:
        rows.append(("  built with torch", build["torch_version"]))
        rows.append(("  for GPU architectures", build["cuda_architectures"] or "none"))
        if not facts["cpu_compiled"]:
            slower = "reference operators on plain torch, slower: this processor has no AVX2"
            rows.append(("  on the CPU", slower))
    rows.append(("CUDA device", ", ".join(cuda["devices"]) or "none"))
    rows.append(("  can be used now", f"no: {cuda['problem']}" if cuda["problem"] else "yes"))
    rows.append(("cache", facts["cache"]))
    rows.append(("networks", ""))
    rows += [(f"  {name}", f"weights {state}") for name, state in facts["networks"].items()]
    return "\n".join(f"{name:26}{value}".rstrip() for name, value in rows)
