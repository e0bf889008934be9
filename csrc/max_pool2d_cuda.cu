#include "cuda.h"
#include "max_pool2d.cuh"
#include "max_pool2d_ops.h"

namespace {

using namespace linscope;

struct Cuda {
  using Guard = CudaGuard;

  template <typename T, typename code_t>
  static void max_pool2d_scope(const PoolShape& shape, const T* x, T* y, code_t* decision,
                               const Guard& guard) {
    launch_max_pool2d_scope(shape, native(x), native(y), decision, guard.stream);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T, typename code_t>
  static void max_pool2d_frozen(const PoolShape& shape, const T* x, const code_t* decision, T* y,
                                const Guard& guard) {
    launch_max_pool2d_frozen(shape, native(x), decision, native(y), guard.stream);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T, typename code_t>
  static void max_pool2d_frozen_transpose(const PoolShape& shape, const T* u,
                                          const code_t* decision, T* x, const Guard& guard) {
    launch_max_pool2d_frozen_transpose(shape, native(u), decision, native(x), guard.stream);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(linscope, CUDA, m) { MaxPool2dOps<Cuda>::implement(m); }
