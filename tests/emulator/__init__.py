"""Runs the CUDA kernels of csrc on the CPU, from the source that nvcc compiles.

Each CUDA thread is a fiber; g++ compiles the kernels against emulator.h in place of nvcc's
language. Three builds look for different mistakes:

- fast: values, divergent barriers, wrong masks, deadlocks, writes around buffers, misaligned
  accesses
- asan: AddressSanitizer and UndefinedBehaviorSanitizer, buffers of exactly their size
- trace: every load and store; races, bounds, reads of what was never written, sectors moved

(and portable: fast, with ucontext's fibers in place of those for x86-64).

`operators.py` calls the kernels with tensors, under the names of linscope_cuda.reference.
"""
