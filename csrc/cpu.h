#pragma once

#include "tensors.h"

namespace linscope {

struct CpuGuard {
  explicit CpuGuard(const Tensor&) {}
};

// Asks for a line of cache that is read soon. Any address will do.
inline void prefetch([[maybe_unused]] const void* p) {
#ifdef __GNUC__  // clang too; without it the loop is only slower
  __builtin_prefetch(p);
#endif
}

template <typename T>
inline wide_t<T> widen(T x) {
  return static_cast<wide_t<T>>(x);
}

// Elements below which a second thread costs more than it brings.
constexpr int64_t kGrain = 16384;

template <typename F>
void parallel_for(int64_t end, int64_t elements_each, const F& f) {
  const int64_t grain = elements_each > 0 ? (kGrain + elements_each - 1) / elements_each : kGrain;
  torch::stable::parallel_for(0, end, grain, f);
}

}  // namespace linscope
