#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include <type_traits>

#include "launch.h"
#include "tensors.h"

namespace linscope {

// Makes the tensor's device and its current stream those of the launch.
struct CudaGuard {
  torch::stable::accelerator::DeviceGuard device;
  int index;
  cudaStream_t stream;

  explicit CudaGuard(const Tensor& x)
      : device(x.get_device_index()), index(x.get_device_index()), stream(current_stream(index)) {}

  // Memory for as long as the launches on the stream take.
  template <typename T>
  Tensor scratch(int64_t size) const {
    using torch::headeronly::DeviceType;
    const torch::stable::Device here(DeviceType::CUDA, static_cast<int32_t>(index));
    const ScalarType dtype = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float;
    return torch::stable::empty({size}, dtype, std::nullopt, here);
  }

 private:
  static cudaStream_t current_stream(int index) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index, &stream));
    return static_cast<cudaStream_t>(stream);
  }
};

template <typename T>
struct NativeOf {
  using type = T;
};
template <>
struct NativeOf<torch::headeronly::Half> {
  using type = __half;
};
template <>
struct NativeOf<torch::headeronly::BFloat16> {
  using type = __nv_bfloat16;
};

// The same memory as NVIDIA's type of the same bits.
template <typename T>
auto* native(T* p) {
  using bare = std::remove_const_t<T>;
  using type = typename NativeOf<bare>::type;
  return reinterpret_cast<std::conditional_t<std::is_const_v<T>, const type, type>*>(p);
}

}  // namespace linscope
