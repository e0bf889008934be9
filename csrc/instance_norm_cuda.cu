#include "cuda.h"
#include "instance_norm.cuh"
#include "instance_norm_ops.h"

namespace {

using namespace linscope;

struct Cuda {
  using Guard = CudaGuard;

  template <typename T, typename wide>
  static void instance_norm_scope(const NormShape& shape, const T* x, const wide* weight,
                                  const wide* bias, double eps, T* y, wide* mean, wide* rstd,
                                  const Guard& guard) {
    int shared_limit = 0;
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                          guard.index));
    const Tensor workspace = guard.scratch<wide>(instance_norm_scope_workspace<wide>(shape));
    launch_instance_norm_scope(shape, native(x), weight, bias, eps, native(y), mean, rstd,
                               workspace.mutable_data_ptr<wide>(), shared_limit, guard.stream);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T, typename wide>
  static void instance_norm_frozen(const NormShape& shape, const T* x, const wide* mean,
                                   const wide* scale, const wide* shift, T* y, const Guard& guard) {
    launch_instance_norm_frozen(shape, native(x), mean, scale, shift, native(y), guard.stream);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T, typename wide>
  static void instance_norm_scope_backward(const NormShape& shape, const T* grad_y, const T* x,
                                           const wide* mean, const wide* rstd, const wide* weight,
                                           T* grad_x, wide* sum_g, wide* sum_gx,
                                           const Guard& guard) {
    const Tensor workspace = guard.scratch<wide>(instance_norm_backward_workspace<wide>(shape));
    launch_instance_norm_scope_backward(shape, native(grad_y), native(x), mean, rstd, weight,
                                        native(grad_x), sum_g, sum_gx,
                                        workspace.mutable_data_ptr<wide>(), guard.stream);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(linscope, CUDA, m) { InstanceNormOps<Cuda>::implement(m); }
