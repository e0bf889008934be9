"""csrc/launch.h as nvcc compiles it: what CUDA refuses before a launch is told."""

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


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="compiling a launch needs nvcc")
def test_shared_memory_that_cuda_refuses_is_an_error(tmp_path):
    (tmp_path / "main.cu").write_text(PROGRAM)
    flags = ["-std=c++20", f"-I{CSRC}", "-Wno-deprecated-gpu-targets", "-arch=sm_75"]
    command = ["nvcc", *flags, "main.cu", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run([str(tmp_path / "main")], capture_output=True, text=True)
    assert done.returncode == 0, "the launch went on"
    assert "wants 1073741824 bytes of shared memory for a block, which CUDA refuses" in done.stdout
