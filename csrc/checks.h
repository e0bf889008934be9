// What every operator asks of its arguments before any work. linscope_cuda/operators/checks.py asks
// the same where no kernel does.
#pragma once

#include <limits>
#include <sstream>
#include <string>

#include "tensors.h"

namespace linscope {

using Sizes = std::vector<int64_t>;

inline std::string text(const Sizes& sizes) {
  std::ostringstream out;
  out << '(';
  for (size_t d = 0; d < sizes.size(); ++d) out << (d ? ", " : "") << sizes[d];
  out << (sizes.size() == 1 ? ",)" : ")");
  return std::move(out).str();
}

// A batch of floating point samples, a multiple of the references.
inline BatchShape batch_shape(const Tensor& x, int64_t references, const char* op) {
  dispatch_floating(x.scalar_type(), op, [&]<typename>() {});
  STD_TORCH_CHECK(x.dim() > 0, op, ": x must hold samples, it has no dimension");
  STD_TORCH_CHECK(references > 0 && x.size(0) % references == 0, op, ": a batch of ", x.size(0),
                  " samples is no multiple of ", references, " references");
  // Not numel() / samples: without samples, too, a sample has a size.
  int64_t sample_size = 1;
  bool fits = true;
  for (int64_t d = 1; d < x.dim(); ++d) {
    const int64_t size = x.size(d);
    fits = fits && (size == 0 || sample_size <= std::numeric_limits<int64_t>::max() / size);
    if (fits) sample_size *= size;
  }
  STD_TORCH_CHECK(fits && sample_size <= int64_t{1} << 60, op, ": samples of ", text(sizes_of(x)),
                  " are too large");
  return {x.size(0), references, sample_size};
}

// A scope decides on its references, so they must be there; a frozen operator may be given no
// samples.
inline BatchShape scope_shape(const Tensor& x, int64_t references, const char* op) {
  const BatchShape shape = batch_shape(x, references, op);
  STD_TORCH_CHECK(shape.samples > 0, op, ": the batch holds no reference");
  return shape;
}

// The references that a decision was taken for: its rows.
inline int64_t rows_of(const Tensor& decision, const char* op) {
  STD_TORCH_CHECK(decision.dim() > 0, op, ": a decision must have a row for each reference");
  return decision.size(0);
}

// Beside x only what lies in the same memory: a kernel would follow the pointer elsewhere.
inline void check_tensor(const char* op, const Tensor& x, const char* name, const Tensor& t,
                         const Sizes& sizes, ScalarType dtype) {
  STD_TORCH_CHECK(t.device() == x.device(), op, ": ", name, " is on another device than x");
  STD_TORCH_CHECK(t.scalar_type() == dtype, op, ": ", name, " must be ",
                  torch::headeronly::toString(dtype), ", not ",
                  torch::headeronly::toString(t.scalar_type()));
  STD_TORCH_CHECK(sizes_of(t) == sizes, op, ": ", name, " must be ", text(sizes), ": ",
                  text(sizes_of(t)), " does not belong to x of shape ", text(sizes_of(x)));
}

inline void check_tensor(const char* op, const Tensor& x, const char* name,
                         const std::optional<Tensor>& t, const Sizes& sizes, ScalarType dtype) {
  if (t) check_tensor(op, x, name, *t, sizes, dtype);
}

inline void check_format(const char* op, const Tensor& x, bool channels_last) {
  STD_TORCH_CHECK(!channels_last || x.dim() == 4 || x.dim() == 5, op,
                  ": channels_last is an order of 4 or 5 dimensions, x has ", x.dim());
}

}  // namespace linscope
