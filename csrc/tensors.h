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

inline MemoryFormat format(bool channels_last) {
  return channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
}

// Strides of (N, H, W, C) on a shape (N, C, H, W). A tensor that is contiguous as well counts as
// contiguous.
inline bool is_channels_last(const Tensor& x) {
  if (x.dim() != 4 || x.is_contiguous()) return false;
  const int64_t c = x.size(1), h = x.size(2), w = x.size(3);
  const auto is = [&](int64_t d, int64_t stride) {
    return x.size(d) == 1 || x.stride(d) == stride;
  };
  return is(1, 1) && is(3, c) && is(2, w * c) && is(0, h * w * c);
}

inline Tensor dense(const Tensor& x, bool channels_last) {
  return torch::stable::contiguous(x, format(channels_last));
}

inline std::optional<Tensor> dense(const std::optional<Tensor>& x) {
  return x ? std::optional<Tensor>(torch::stable::contiguous(*x)) : std::nullopt;
}

inline Tensor empty(const std::vector<int64_t>& sizes, const Tensor& like, ScalarType dtype,
                    bool channels_last = false) {
  return torch::stable::empty(sizes, dtype, std::nullopt, like.device(), std::nullopt,
                              format(channels_last));
}

inline Tensor empty_as(const Tensor& x, bool channels_last) {
  return empty(sizes_of(x), x, x.scalar_type(), channels_last);
}

// Statistics and sums are kept in float32 or better.
inline ScalarType wide_dtype(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline BatchShape batch_shape(const Tensor& x, int64_t references, const char* op) {
  STD_TORCH_CHECK(x.dim() > 0 && references > 0 && x.size(0) % references == 0, op, ": a batch of ",
                  x.dim() > 0 ? x.size(0) : 0, " samples is no multiple of ", references,
                  " references");
  return {x.size(0), references, x.size(0) == 0 ? 0 : x.numel() / x.size(0)};
}

// A scope decides on its references, so they must be there; a frozen operator may be given no
// samples.
inline BatchShape scope_shape(const Tensor& x, int64_t references, const char* op) {
  const BatchShape shape = batch_shape(x, references, op);
  STD_TORCH_CHECK(shape.samples > 0, op, ": the batch holds no reference");
  return shape;
}

template <typename T>
const T* data(const std::optional<Tensor>& x) {
  return x ? x->const_data_ptr<T>() : nullptr;
}

}  // namespace linscope
