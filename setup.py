"""Builds the compiled operators: the CPU's loops, and the CUDA kernels where torch is a CUDA build
and its toolkit is there.

LINSCOPE_CUDA=auto (default), 1 (fail if CUDA kernels cannot be built) or 0 (CPU only).
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from glob import glob

from setuptools import setup

# libtorch's stable interface of the oldest torch that linscope_cuda runs with. What is compiled
# against a newer one asks for nothing that this one lacks.
TORCH_ABI = "0x020b000000000000"  # 2.11
# The same for Python: 3.10. A Python without global lock has no limited API yet.
ABI3 = not sysconfig.get_config_var("Py_GIL_DISABLED")


def say(text):
    print(f"linscope_cuda: {text}", file=sys.stderr)


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


def ask_nvcc(home, *question):
    nvcc = os.path.join(home, "bin", "nvcc")
    return subprocess.run([nvcc, *question], capture_output=True, text=True).stdout


def lacks_for_cuda(torch, home):
    """What keeps CUDA kernels from being built, or None."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a CPU-only build"
    if home is None:
        return "no CUDA toolkit was found: put its nvcc on PATH or its folder in CUDA_HOME"
    release = re.search(r"release (\d+)\.", ask_nvcc(home, "--version"))
    major = torch.version.cuda.split(".")[0]
    if release and release.group(1) != major:
        return (
            f"torch {torch.__version__} wants a toolkit of CUDA {major}, the one in {home} is of "
            f"CUDA {release.group(1)} (pip install --no-build-isolation . takes your own torch)"
        )
    return None


def cuda_home(torch):
    """The toolkit to build CUDA kernels with, or None; exits with what is missing if they are
    demanded.
    """
    wanted = os.environ.get("LINSCOPE_CUDA", "auto")
    if wanted not in ("0", "1", "auto"):
        sys.exit(f"linscope_cuda: LINSCOPE_CUDA must be 0, 1 or auto, not {wanted!r}")
    if wanted == "0":
        return None
    home = toolkit_home()
    lack = lacks_for_cuda(torch, home)
    if wanted == "1" and lack:
        sys.exit(f"linscope_cuda: LINSCOPE_CUDA=1 demands CUDA kernels, but {lack}")
    if lack and torch.version.cuda:
        say(f"built without CUDA kernels, plain torch stands in on a GPU, slower: {lack}")
    return None if lack else home


def architectures_of(home):
    """From Turing to Blackwell as far as the toolkit goes, and PTX for those that come after."""
    known = set(re.findall(r"compute_(\d+)", ask_nvcc(home, "--list-gpu-arch")))
    wanted = [a for a in ("75", "80", "86", "90", "100", "120") if a in known] or ["80"]
    return ";".join(f"{a[:-1]}.{a[-1]}" for a in wanted) + "+PTX"


def flags(*, vectors):
    """For the host's compiler. No flag here changes a value.

    x86-64-v3 is AVX2 and FMA. So the loops that want vector code are a library of their own, which
    is not loaded on a processor without them: the linker would take functions that both use from
    either.
    """
    x86 = platform.machine() in ("x86_64", "AMD64")
    if sys.platform == "win32":
        return ["/O2", "/std:c++20", *(["/arch:AVX2"] if vectors and x86 else [])]
    found = ["-O3", "-std=c++20", "-g0", "-Wall"]
    if vectors:
        found += ["-fopenmp-simd", "-fno-trapping-math", "-fno-math-errno"]
    return [*found, *(["-march=x86-64-v3"] if vectors and x86 else [])]


def extensions(torch):
    home = cuda_home(torch)
    if home:
        os.environ["CUDA_HOME"] = home  # before torch's extension builder guesses
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    version = f'-DLINSCOPE_TORCH_VERSION="{torch.__version__}"'
    facts = [f"-DTORCH_TARGET_VERSION={TORCH_ABI}", version]
    common = {"depends": glob("csrc/*.h") + glob("csrc/*.cuh"), "py_limited_api": ABI3}
    modules = [
        CppExtension(
            "linscope_cuda._cpu",
            [*sorted(glob("csrc/*_cpu.cpp")), "csrc/cpu.cpp"],
            extra_compile_args=[*flags(vectors=True), *facts],
            **common,
        )
    ]
    if home is None:
        return modules
    if not torch.cuda.is_available():  # otherwise torch takes those of the GPUs here
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", architectures_of(home))
    architectures = os.environ.get("TORCH_CUDA_ARCH_LIST", "those of the GPUs here")
    facts += [
        f'-DLINSCOPE_CUDA_VERSION="{torch.version.cuda}"',
        f'-DLINSCOPE_CUDA_ARCHITECTURES="{architectures}"',
    ]
    nvcc = ["-O3", "-std=c++20", "-DUSE_CUDA", "--extended-lambda", "-Wno-deprecated-gpu-targets"]
    kernels = CUDAExtension(
        "linscope_cuda._cuda",
        ["csrc/cuda.cpp", *sorted(glob("csrc/*_cuda.cu"))],
        extra_compile_args={"cxx": [*flags(vectors=False), *facts], "nvcc": [*nvcc, *facts]},
        **common,
    )
    return [*modules, kernels]


def build():
    try:
        import torch
    except ImportError:
        sys.exit(
            "linscope_cuda: torch is not installed; install it first (pip install 'torch>=2.11'), "
            "or let pip fetch one for the build: pip install . without --no-build-isolation"
        )
    compiler = shutil.which(os.environ.get("CXX", "c++").split()[0])
    if compiler is None and sys.platform != "win32":
        lack = "no C++ compiler was found (CXX, c++)"
        if os.environ.get("LINSCOPE_CUDA") == "1":
            sys.exit(f"linscope_cuda: LINSCOPE_CUDA=1 demands CUDA kernels, but {lack}")
        say(f"{lack}: built without compiled operators; everything runs, slower, on plain torch")
        return {}
    modules = extensions(torch)
    from torch.utils.cpp_extension import BuildExtension

    return {
        "ext_modules": modules,
        "cmdclass": {"build_ext": BuildExtension},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}} if ABI3 else {},
    }


# A source distribution is that of MANIFEST.in, on every machine, and wants no torch.
setup(**({} if {"sdist", "egg_info"} & set(sys.argv) else build()))
