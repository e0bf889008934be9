"""csrc/launch.h as nvcc compiles it: what CUDA is asked for, and that what it refuses is told."""

import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"

# More shared memory than any device has; without a device, CUDA refuses all the same.
PROGRAM = """
#include <cstdio>
#include "launch.h"
__global__ void idle_kernel(int* p) { extern __shared__ int s[]; s[0] = 1; *p = s[0]; }
int main() {
  try {
    linscope::launch(idle_kernel, 1, 32, size_t{1} << 30, nullptr, static_cast<int*>(nullptr));
  } catch (const std::runtime_error& error) {
    std::printf("%s", error.what());
    return 0;
  }
  return 1;
}
"""


# Stands where CUDA's library would: says what it is asked for, and refuses more than 100000 bytes.
STUB = """
#include <cuda_runtime_api.h>
#include <cstdio>
namespace {
dim3 grid, block;
size_t shared;
cudaStream_t stream;
}
extern "C" {
void** __cudaRegisterFatBinary(void*) { static void* handle; return &handle; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaInitModule(void**) {}
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, uint3*, uint3*, dim3*,
                            dim3*, int*) {}
unsigned __cudaPushCallConfiguration(dim3 g, dim3 b, size_t bytes, CUstream_st* s) {
  grid = g, block = b, shared = bytes, stream = s;
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* g, dim3* b, size_t* bytes, void* s) {
  *g = grid, *b = block, *bytes = shared, *static_cast<cudaStream_t*>(s) = stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* f) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(f));
  return cudaSuccess;
}
cudaError_t cudaLaunchKernel(const void*, dim3 g, dim3 b, void** args, size_t bytes,
                             cudaStream_t s) {
  std::printf("launch of %ux%ux%u blocks of %ux%ux%u, %zu bytes, stream %zu, argument %d\\n", g.x,
              g.y, g.z, b.x, b.y, b.z, bytes, reinterpret_cast<size_t>(s),
              *static_cast<int*>(args[0]));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t k, dim3 g, dim3 b, void** args, size_t bytes,
                               cudaStream_t s) {
  return cudaLaunchKernel(k, g, b, args, bytes, s);
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute what, int value) {
  const bool known = what == cudaFuncAttributeMaxDynamicSharedMemorySize;
  std::printf("%s %d\\n", known ? "leave for" : "attribute", value);
  return value > 100000 ? cudaErrorInvalidValue : cudaSuccess;
}
cudaError_t cudaGetLastError() { return std::printf("forgotten\\n"), cudaErrorInvalidValue; }
const char* cudaGetErrorString(cudaError_t) { return "no such leave"; }
}
"""
LAUNCHES = """
#include <cstdio>
#include <cstdlib>
#include "launch.h"
__global__ void idle_kernel(int) {}
int main(int, char** argv) {
  const auto stream = reinterpret_cast<cudaStream_t>(size_t{64});
  try {
    linscope::launch(idle_kernel, dim3(7, 5, 3), dim3(64, 2), std::atoi(argv[1]), stream, 11);
  } catch (const std::runtime_error& error) {
    std::printf("%s\\n", error.what());
  }
}
"""
FLAGS = ["-std=c++20", f"-I{CSRC}", "-Wno-deprecated-gpu-targets", "-arch=sm_75"]

needs_nvcc = pytest.mark.skipif(
    shutil.which("nvcc") is None, reason="compiling a launch needs nvcc"
)


@needs_nvcc
def test_what_cuda_is_asked_for(tmp_path):
    (tmp_path / "main.cu").write_text(LAUNCHES)
    (tmp_path / "stub.cpp").write_text(STUB)
    command = ["nvcc", *FLAGS, "-cudart", "none", "main.cu", "stub.cpp", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    def asked(size):
        done = subprocess.run([tmp_path / "main", str(size)], capture_output=True, text=True)
        return done.stdout.splitlines()

    launch = "launch of 7x5x3 blocks of 64x2x1, {} bytes, stream 64, argument 11"
    for size in (0, 1, 32 * 1024):
        assert asked(size) == [launch.format(size)]
    for size in (32 * 1024 + 1, 100000):
        assert asked(size) == [f"leave for {size}", launch.format(size)]
    *done, told = asked(100001)
    assert done == ["leave for 100001", "forgotten"]
    assert "wants 100001 bytes of shared memory for a block, which CUDA refuses: no such" in told


@needs_nvcc
def test_shared_memory_that_cuda_refuses_is_an_error(tmp_path):
    (tmp_path / "main.cu").write_text(PROGRAM)
    command = ["nvcc", *FLAGS, "main.cu", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run([str(tmp_path / "main")], capture_output=True, text=True)
    assert done.returncode == 0, "the launch went on"
    assert "wants 1073741824 bytes of shared memory for a block, which CUDA refuses" in done.stdout
