// What every operator does with tensors before and after its loop, on libtorch's stable ABI.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>

#include <optional>
#include <tuple>
#include <vector>

#include "dispatch.h"
#include "scopes.h"

namespace linscope {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::vector<int64_t> sizes_of(const Tensor& x) {
  std::vector<int64_t> sizes(x.dim());
  for (int64_t d = 0; d < x.dim(); ++d) sizes[d] = x.size(d);
  return sizes;
}

// torch has such a format for 4 and for 5 dimensions.
inline MemoryFormat format(bool channels_last, int64_t dims) {
  if (!channels_last) return MemoryFormat::Contiguous;
  return dims == 5 ? MemoryFormat::ChannelsLast3d : MemoryFormat::ChannelsLast;
}

// Strides of (N, *spatial, C) on a shape (N, C, *spatial). A tensor that is contiguous as well
// counts as contiguous.
inline bool is_channels_last(const Tensor& x) {
  if ((x.dim() != 4 && x.dim() != 5) || x.is_contiguous()) return false;
  int64_t stride = 1;
  const auto is_next = [&](int64_t d) {
    const bool is = x.size(d) == 1 || x.stride(d) == stride;
    stride *= x.size(d);
    return is;
  };
  bool last = is_next(1);
  for (int64_t d = x.dim() - 1; d > 1; --d) last = is_next(d) && last;
  return is_next(0) && last;
}

inline Tensor dense(const Tensor& x, bool channels_last) {
  return torch::stable::contiguous(x, format(channels_last, x.dim()));
}

inline std::optional<Tensor> dense(const std::optional<Tensor>& x) {
  return x ? std::optional<Tensor>(torch::stable::contiguous(*x)) : std::nullopt;
}

inline Tensor empty(const std::vector<int64_t>& sizes, const Tensor& like, ScalarType dtype,
                    bool channels_last = false) {
  return torch::stable::empty(sizes, dtype, std::nullopt, like.device(), std::nullopt,
                              format(channels_last, static_cast<int64_t>(sizes.size())));
}

inline Tensor empty_as(const Tensor& x, bool channels_last) {
  return empty(sizes_of(x), x, x.scalar_type(), channels_last);
}

// Statistics and sums are kept in float32 or better.
inline ScalarType wide_dtype(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

template <typename T>
const T* data(const std::optional<Tensor>& x) {
  return x ? x->const_data_ptr<T>() : nullptr;
}

}  // namespace linscope
