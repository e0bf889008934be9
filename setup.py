"""Builds the C++ operators, with the CUDA kernels where torch is a CUDA build and nvcc is there.

LINSCOPE_CUDA=auto (default), 1 (fail if CUDA kernels cannot be built) or 0 (CPU only).
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from glob import glob

from setuptools import setup

try:
    import torch
except ImportError:
    sys.exit(
        "linscope_cuda: torch is not installed; install it first (pip install 'torch>=2.11') "
        "and build with pip install --no-build-isolation ."
    )


def toolkit_home():
    """The CUDA toolkit's real folder, which nvcc knows: the one on PATH may be a wrapper script."""
    named = os.environ.get("CUDA_HOME")
    places = [f"{named}/bin/nvcc"] if named else ["nvcc", "/usr/local/cuda/bin/nvcc"]
    nvcc = next(filter(None, map(shutil.which, places)), None)
    if nvcc is None:
        return None
    plan = subprocess.run([nvcc, "--dryrun", "x.cu"], capture_output=True, text=True).stderr
    top = re.search(r"^#\$ TOP=(.*)$", plan, re.MULTILINE)
    return os.path.realpath(top.group(1).strip()) if top else None


def cuda_home():
    """The toolkit to build CUDA kernels with, or None; exits with what is missing if they are
    demanded.
    """
    wanted = os.environ.get("LINSCOPE_CUDA", "auto")
    if wanted not in ("0", "1", "auto"):
        sys.exit(f"linscope_cuda: LINSCOPE_CUDA must be 0, 1 or auto, not {wanted!r}")
    home = None if wanted == "0" else toolkit_home()
    missing = None
    if torch.version.cuda is None:
        missing = f"torch {torch.__version__} is a CPU-only build"
    elif home is None:
        missing = "no CUDA toolkit was found: put its nvcc on PATH or its folder in CUDA_HOME"
    if wanted == "1" and missing:
        sys.exit(f"linscope_cuda: LINSCOPE_CUDA=1 demands CUDA kernels, but {missing}")
    return None if missing else home


def architectures_of(home):
    """From Turing to Blackwell as far as the toolkit goes, and PTX for those that come after."""
    nvcc = os.path.join(home, "bin", "nvcc")
    said = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True).stdout
    known = set(re.findall(r"compute_(\d+)", said))
    wanted = [a for a in ("75", "80", "86", "90", "100", "120") if a in known] or ["80"]
    return ";".join(f"{a[:-1]}.{a[-1]}" for a in wanted) + "+PTX"


def vector_flags():
    """What lets the CPU's loops become vector code; no flag here changes a value.

    x86-64-v3 is AVX2 and FMA. So these loops are a library of their own, which is not loaded on a
    processor without them: the linker would take functions that both use from either.
    """
    x86 = platform.machine() in ("x86_64", "AMD64")
    vectors = ["-fopenmp-simd", "-fno-trapping-math", "-fno-math-errno"]
    return [*vectors, "-march=x86-64-v3"] if x86 else vectors


def stable_abi():
    """libtorch's stable interface of the oldest torch that what is built here runs with: this one,
    but none newer than what is asked of it.
    """
    major, minor = map(int, torch.__version__.split(".")[:2])
    major, minor = min((major, minor), (2, 12))
    return f"0x{major:02x}{minor:02x}000000000000"


def has_compiler():
    return shutil.which(os.environ.get("CXX", "c++").split()[0]) is not None


def extensions():
    """`_C`: schemas and CUDA kernels; `_cpu`: the CPU's loops."""
    home = cuda_home()
    if home:
        os.environ["CUDA_HOME"] = home  # before torch's extension builder guesses
    import pybind11
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    if home and not torch.cuda.is_available():  # otherwise torch takes those of the GPUs here
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", architectures_of(home))
    architectures = os.environ.get("TORCH_CUDA_ARCH_LIST", "those of the GPUs here")
    flags = ["-O3", "-std=c++20", f"-DTORCH_TARGET_VERSION={stable_abi()}"]
    facts = [f'-DLINSCOPE_TORCH_VERSION="{torch.__version__}"']
    if home:
        facts += [
            f'-DLINSCOPE_CUDA_VERSION="{torch.version.cuda}"',
            f'-DLINSCOPE_CUDA_ARCHITECTURES="{architectures}"',
        ]
    loops = [*sorted(glob("csrc/*_cpu.cpp")), "csrc/cpu.cpp"]
    cxx = [*flags, "-g0", "-Wall"]
    nvcc = [*flags, "-DUSE_CUDA", "--extended-lambda", "-Wno-deprecated-gpu-targets"]
    common = {
        "include_dirs": [pybind11.get_include()],
        "depends": glob("csrc/*.h") + glob("csrc/*.cuh"),
    }
    make = CUDAExtension if home else CppExtension
    return [
        make(
            "linscope_cuda._C",
            ["csrc/ops.cpp", *(sorted(glob("csrc/*.cu")) if home else [])],
            extra_compile_args={"cxx": [*cxx, *facts], "nvcc": nvcc},
            **common,
        ),
        CppExtension(
            "linscope_cuda._cpu", loops, extra_compile_args=[*cxx, *vector_flags()], **common
        ),
    ]


def build():
    if not has_compiler():
        if os.environ.get("LINSCOPE_CUDA") == "1":
            sys.exit(
                "linscope_cuda: LINSCOPE_CUDA=1 demands CUDA kernels, but no C++ compiler was found"
            )
        print(
            "linscope_cuda: no C++ compiler was found (CXX, c++): installing without compiled "
            "operators; everything runs, slower, on plain torch.",
            file=sys.stderr,
        )
        return {}
    modules = extensions()
    from torch.utils.cpp_extension import BuildExtension

    return {"ext_modules": modules, "cmdclass": {"build_ext": BuildExtension}}


setup(**build())
