#pragma once

#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

namespace linscope {

// Calls f.operator()<scalar_t>() for the C++ type behind a floating dtype.
template <typename F>
void dispatch_floating(torch::headeronly::ScalarType dtype, const char* op, const F& f) {
  using torch::headeronly::ScalarType;
  switch (dtype) {
    case ScalarType::Float:
      return f.template operator()<float>();
    case ScalarType::Double:
      return f.template operator()<double>();
    case ScalarType::Half:
      return f.template operator()<torch::headeronly::Half>();
    case ScalarType::BFloat16:
      return f.template operator()<torch::headeronly::BFloat16>();
    default:
      STD_TORCH_CHECK(false, op, ": unsupported dtype ", torch::headeronly::toString(dtype));
  }
}

// Calls f.operator()<code_t>() for the type of a max pool's decisions: a byte for windows of up to
// 256 pixels.
template <typename F>
void dispatch_code(torch::headeronly::ScalarType dtype, const char* op, const F& f) {
  using torch::headeronly::ScalarType;
  switch (dtype) {
    case ScalarType::Byte:
      return f.template operator()<uint8_t>();
    case ScalarType::Int:
      return f.template operator()<int32_t>();
    default:
      STD_TORCH_CHECK(false, op, ": decisions must be uint8 or int32, not ",
                      torch::headeronly::toString(dtype));
  }
}

}  // namespace linscope
