#include "cpu.h"
#include "gate_ops.h"

namespace {

using namespace linscope;

struct Cpu {
  using Guard = CpuGuard;

  // Calls f(first, last) for ranges of the references' elements; probes lie `stride` further each.
  template <typename F>
  static void for_references(const BatchShape& shape, const F& f) {
    parallel_for(shape.references * shape.sample_size, shape.samples / shape.references, f);
  }

  template <typename Gate, typename T>
  static void gate_scope(const BatchShape& shape, const T* x, T* y, T* gate, const Guard&) {
    const int64_t stride = shape.references * shape.sample_size,
                  end = shape.samples * shape.sample_size;
    for_references(shape, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        y[i] = static_cast<T>(Gate::value(widen(x[i])));
        gate[i] = static_cast<T>(Gate::gate(widen(x[i])));
      }
      apply(x, gate, Gate::shift, y, first, last, stride, stride, end);
    });
  }

  template <typename T>
  static void gate_frozen(const BatchShape& shape, const T* x, const T* gate, double shift, T* y,
                          const Guard&) {
    const int64_t stride = shape.references * shape.sample_size,
                  end = shape.samples * shape.sample_size;
    for_references(shape, [&](int64_t first, int64_t last) {
      apply(x, gate, shift, y, first, last, 0, stride, end);
    });
  }

  template <typename Gate, typename T>
  static void gate_scope_backward(const BatchShape& shape, const T* grad_y, const T* x, T* grad_x,
                                  const Guard&) {
    using wide = wide_t<T>;
    const int64_t stride = shape.references * shape.sample_size,
                  end = shape.samples * shape.sample_size;
    for_references(shape, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const wide x0 = widen(x[i]), gate = Gate::gate(x0);
        wide through_gate = 0;
        for (int64_t p = i + stride; p < end; p += stride) {
          through_gate += widen(x[p]) * widen(grad_y[p]);
          grad_x[p] = static_cast<T>(gate * widen(grad_y[p]));
        }
        grad_x[i] = static_cast<T>(Gate::value_slope(x0) * widen(grad_y[i]) +
                                   Gate::gate_slope(x0) * through_gate);
      }
    });
  }

  template <typename T>
  static void apply(const T* x, const T* gate, double shift, T* y, int64_t first, int64_t last,
                    int64_t from, int64_t stride, int64_t end) {
    for (int64_t at = from; at < end; at += stride) {
      for (int64_t i = first; i < last; ++i) {
        y[at + i] =
            static_cast<T>(widen(gate[i]) * widen(x[at + i]) + static_cast<wide_t<T>>(shift));
      }
    }
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(linscope, CPU, m) { GateOps<Cpu>::implement(m); }
