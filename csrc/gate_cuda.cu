#include "cuda.h"
#include "gate.cuh"
#include "gate_ops.h"

namespace {

using namespace linscope;

struct Cuda {
  using Guard = CudaGuard;

  template <typename Gate, typename T>
  static void gate_scope(const BatchShape& shape, const T* x, T* y, T* gate, const Guard& guard) {
    launch_gate_scope<Gate>(shape, native(x), native(y), native(gate), guard.stream);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T>
  static void gate_frozen(const BatchShape& shape, const T* x, const T* gate, double shift, T* y,
                          const Guard& guard) {
    launch_gate_frozen(shape, native(x), native(gate), shift, native(y), guard.stream);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename Gate, typename T>
  static void gate_scope_backward(const BatchShape& shape, const T* grad_y, const T* x, T* grad_x,
                                  const Guard& guard) {
    launch_gate_scope_backward<Gate>(shape, native(grad_y), native(x), native(grad_x),
                                     guard.stream);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(linscope, CUDA, m) { GateOps<Cuda>::implement(m); }
