#include "cuda.h"
#include "piecewise.cuh"
#include "piecewise_ops.h"

namespace {

using namespace linscope;

struct Cuda {
  using Guard = CudaGuard;

  template <typename Unit, typename T>
  static void piecewise_scope(const Unit& unit, const PackedShape& shape, const T* x, T* y,
                              uint8_t* decision, const Guard& guard) {
    launch_piecewise_scope(unit, shape, native(x), native(y), decision, guard.stream);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename Unit, typename T>
  static void piecewise_frozen(const Unit& unit, const PackedShape& shape, const T* x,
                               const uint8_t* decision, T* y, const Guard& guard) {
    launch_piecewise_frozen(unit, shape, native(x), decision, native(y), guard.stream);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(linscope, CUDA, m) { PiecewiseOps<Cuda>::implement(m); }
