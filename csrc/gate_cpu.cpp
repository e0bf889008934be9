#include <algorithm>

#include "cpu.h"
#include "gate_ops.h"

namespace {

using namespace linscope;

constexpr int64_t kTile = 1024;

// Pointers are restricted so that these loops become vector code.
template <typename Gate, typename T>
void decide(const T* __restrict x, int64_t n, T* __restrict y, T* __restrict gate) {
  for (int64_t i = 0; i < n; ++i) {
    const auto x0 = widen(x[i]);
    y[i] = static_cast<T>(Gate::value(x0));
    gate[i] = static_cast<T>(Gate::gate(x0));
  }
}

template <typename T>
void apply(const T* __restrict x, const T* __restrict gate, wide_t<T> shift, int64_t n,
           T* __restrict y) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(widen(gate[i]) * widen(x[i]) + shift);
}

// What a tile's references do to the derivative: y0 moves by value_slope, the gate by gate_slope.
template <typename T>
struct Slopes {
  T gate[kTile], value_slope[kTile], gate_slope[kTile], through_gate[kTile];

  template <typename Gate, typename In>
  void decide(const In* __restrict x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      const T x0 = widen(x[i]);
      gate[i] = Gate::gate(x0);
      value_slope[i] = Gate::value_slope(x0);
      gate_slope[i] = Gate::gate_slope(x0);
      through_gate[i] = 0;
    }
  }

  template <typename In>
  void probe(const In* __restrict x, const In* __restrict grad_y, int64_t n,
             In* __restrict grad_x) {
    for (int64_t i = 0; i < n; ++i) {
      through_gate[i] += widen(x[i]) * widen(grad_y[i]);
      grad_x[i] = static_cast<In>(gate[i] * widen(grad_y[i]));
    }
  }

  template <typename In>
  void reference(const In* __restrict grad_y, int64_t n, In* __restrict grad_x) const {
    for (int64_t i = 0; i < n; ++i) {
      grad_x[i] =
          static_cast<In>(value_slope[i] * widen(grad_y[i]) + gate_slope[i] * through_gate[i]);
    }
  }
};

// Of all references: so far apart lie an element's probes.
int64_t elements_of(const BatchShape& shape) { return shape.references * shape.sample_size; }

// Calls f(first, count) for tiles of the references' elements that stay in the first cache.
template <typename F>
void for_tiles(const BatchShape& shape, const F& f) {
  const int64_t elements = elements_of(shape), tiles = (elements + kTile - 1) / kTile;
  const int64_t each = std::min(kTile, elements) * (shape.samples / shape.references);
  parallel_for(tiles, each, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) f(t * kTile, std::min(kTile, elements - t * kTile));
  });
}

struct Cpu {
  using Guard = CpuGuard;

  template <typename Gate, typename T>
  static void gate_scope(const BatchShape& shape, const T* x, T* y, T* gate, const Guard&) {
    const int64_t stride = elements_of(shape), end = shape.samples * shape.sample_size;
    for_tiles(shape, [&](int64_t i, int64_t n) {
      decide<Gate>(x + i, n, y + i, gate + i);
      for (int64_t at = i + stride; at < end; at += stride) {
        apply<T>(x + at, gate + i, Gate::shift, n, y + at);
      }
    });
  }

  template <typename T>
  static void gate_frozen(const BatchShape& shape, const T* x, const T* gate, double shift, T* y,
                          const Guard&) {
    const int64_t stride = elements_of(shape), end = shape.samples * shape.sample_size;
    for_tiles(shape, [&](int64_t i, int64_t n) {
      for (int64_t at = i; at < end; at += stride) apply<T>(x + at, gate + i, shift, n, y + at);
    });
  }

  template <typename Gate, typename T>
  static void gate_scope_backward(const BatchShape& shape, const T* grad_y, const T* x, T* grad_x,
                                  const Guard&) {
    const int64_t stride = elements_of(shape), end = shape.samples * shape.sample_size;
    for_tiles(shape, [&](int64_t i, int64_t n) {
      Slopes<wide_t<T>> slopes;
      slopes.template decide<Gate>(x + i, n);
      for (int64_t at = i + stride; at < end; at += stride) {
        slopes.probe(x + at, grad_y + at, n, grad_x + at);
      }
      slopes.reference(grad_y + i, n, grad_x + i);
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(linscope, CPU, m) { GateOps<Cpu>::implement(m); }
