// How launchers are called from outside: by name, with a dtype, integers, reals and buffers, each
// taken in the order in which the launcher asks for them.
#pragma once

#include <cstdint>

#include "emulator.h"

namespace emulator {

enum class Dtype { kFloat32, kFloat64, kFloat16, kBfloat16 };

class Arguments {
 public:
  Arguments(Dtype dtype, const int64_t* integers, const double* reals, void* const* buffers)
      : dtype_(dtype), integers_(integers), reals_(reals), buffers_(buffers) {}

  int64_t integer() { return *integers_++; }
  double real() { return *reals_++; }

  struct Pointer {
    void* p;
    template <typename T>
    operator T*() const {
      return static_cast<T*>(p);
    }
  };
  Pointer buffer() { return {*buffers_++}; }

  // Calls f.operator()<T>() for the dtype's type.
  template <typename F>
  void dispatch(const F& f) const {
    switch (dtype_) {
      case Dtype::kFloat32:
        return f.template operator()<float>();
#ifndef EMULATOR_FLOAT32
      case Dtype::kFloat64:
        return f.template operator()<double>();
      case Dtype::kFloat16:
        return f.template operator()<__half>();
      case Dtype::kBfloat16:
        return f.template operator()<__nv_bfloat16>();
#endif
      default:
        fault("a dtype that this build has not", Place::current());
    }
  }

 private:
  Dtype dtype_;
  const int64_t* integers_;
  const double* reals_;
  void* const* buffers_;
};

// A launcher, callable under its name from the moment that the library is loaded.
struct Launcher {
  Launcher(const char* name, void (*run)(Arguments&));
};

}  // namespace emulator
