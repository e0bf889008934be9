#include <algorithm>
#include <vector>

#include "cpu.h"
#include "max_pool2d_ops.h"

namespace {

using namespace linscope;

struct Widen {
  template <typename T>
  auto operator()(T x) const {
    return widen(x);
  }
};

// Calls f(reference, channel, row, column) for every pixel of the references' planes, in the order
// of memory.
template <typename F>
void for_pixels(const Planes& planes, int64_t references, int64_t work_each, const F& f) {
  const int64_t c = planes.channels, h = planes.height, w = planes.width;
  if (planes.channels_last) {
    parallel_for(references * h, w * c * work_each, [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) {
        for (int column = 0; column < planes.width; ++column) {
          for (int channel = 0; channel < planes.channels; ++channel) {
            f(line / h, channel, static_cast<int>(line % h), column);
          }
        }
      }
    });
  } else {
    parallel_for(references * c, h * w * work_each, [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane) {
        for (int row = 0; row < planes.height; ++row) {
          for (int column = 0; column < planes.width; ++column)
            f(plane / c, static_cast<int>(plane % c), row, column);
        }
      }
    });
  }
}

struct Cpu {
  using Guard = CpuGuard;

  static int64_t work(const PoolShape& shape) {
    return shape.samples / shape.references + shape.window.kernel_h * shape.window.kernel_w;
  }

  template <typename T, typename code_t>
  static void max_pool2d_scope(const PoolShape& shape, const T* x, T* y, code_t* decision,
                               const Guard&) {
    for_pixels(
        shape.out, shape.references, work(shape), [&](int64_t r, int channel, int row, int column) {
          const int winner =
              shape.window.decide(x + shape.in.base(r, channel), shape.in, row, column, Widen());
          const int64_t source = shape.window.source(winner, shape.in, row, column);
          const int64_t target = shape.out.pixel(row, column);
          decision[shape.out.base(r, channel) + target] = static_cast<code_t>(winner);
          for (int64_t s = r; s < shape.samples; s += shape.references) {
            y[shape.out.base(s, channel) + target] = x[shape.in.base(s, channel) + source];
          }
        });
  }

  template <typename T, typename code_t>
  static void max_pool2d_frozen(const PoolShape& shape, const T* x, const code_t* decision, T* y,
                                const Guard&) {
    for_pixels(shape.out, shape.references, work(shape),
               [&](int64_t r, int channel, int row, int column) {
                 const int64_t target = shape.out.pixel(row, column);
                 const int winner = decision[shape.out.base(r, channel) + target];
                 const int64_t source = shape.window.source(winner, shape.in, row, column);
                 for (int64_t s = r; s < shape.samples; s += shape.references) {
                   y[shape.out.base(s, channel) + target] = x[shape.in.base(s, channel) + source];
                 }
               });
  }

  // A thread has whole planes, so that it can scatter: neighbouring channels of a channels_last
  // sample share their lines of memory and go together.
  template <typename T, typename code_t>
  static void max_pool2d_frozen_transpose(const PoolShape& shape, const T* u,
                                          const code_t* decision, T* x, const Guard&) {
    const int lanes = shape.in.channels_last ? std::min(shape.in.channels, 32) : 1;
    const int64_t tiles = (shape.in.channels + lanes - 1) / lanes;
    const int64_t each = shape.in.area() * lanes * (shape.samples / shape.references);
    parallel_for(shape.references * tiles, each, [&](int64_t begin, int64_t end) {
      std::vector<wide_t<T>> sums;
      for (int64_t t = begin; t < end; ++t) {
        const int channel = static_cast<int>(t % tiles) * lanes;
        const int width = std::min(lanes, shape.in.channels - channel);
        const code_t* winners = decision + shape.out.base(t / tiles, channel);
        for (int64_t s = t / tiles; s < shape.samples; s += shape.references) {
          sums.assign(shape.in.area() * width, 0);
          scatter(shape, u + shape.out.base(s, channel), winners, width, sums.data());
          T* out = x + shape.in.base(s, channel);
          const int64_t pixel = shape.in.pixel(0, 1);
          for (int64_t i = 0; i < shape.in.area(); ++i) {
            for (int c = 0; c < width; ++c)
              out[i * pixel + c] = static_cast<T>(sums[i * width + c]);
          }
        }
      }
    });
  }

  template <typename T, typename code_t>
  static void scatter(const PoolShape& shape, const T* u, const code_t* winners, int width,
                      wide_t<T>* sums) {
    const Planes local{width, shape.in.height, shape.in.width, true};
    for (int row = 0; row < shape.out.height; ++row) {
      for (int column = 0; column < shape.out.width; ++column) {
        const int64_t at = shape.out.pixel(row, column);
        for (int c = 0; c < width; ++c) {
          sums[shape.window.source(winners[at + c], local, row, column) + c] += widen(u[at + c]);
        }
      }
    }
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(linscope, CPU, m) { MaxPool2dOps<Cpu>::implement(m); }
