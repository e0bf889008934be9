#include <algorithm>

#include "cpu.h"
#include "instance_norm_ops.h"

namespace {

using namespace linscope;

// Channels of a channels_last sample that are worked on together: their pixels share cache lines.
constexpr int64_t kLanes = 16;
// Pixels whose sums are taken directly, before they are merged: few enough to stay in the first
// cache and to keep the sums' digits.
constexpr int64_t kChunk = 256;

template <typename T>
Moments<wide_t<T>> moments_of(const T* x, int64_t n, int64_t stride) {
  using wide = wide_t<T>;
  wide sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += widen(x[i * stride]);
  const wide mean = sum / static_cast<wide>(n);
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < n; ++i)
    squares += (widen(x[i * stride]) - mean) * (widen(x[i * stride]) - mean);
  return {static_cast<wide>(n), mean, squares};
}

template <typename T>
GradientSums<wide_t<T>> gradient_sums_of(const T* g, const T* x,
                                         const Normalize<wide_t<T>>& normalize, int64_t n,
                                         int64_t stride) {
  wide_t<T> sum_g = 0, sum_gx = 0;
#pragma omp simd reduction(+ : sum_g, sum_gx)
  for (int64_t i = 0; i < n; ++i) {
    sum_g += widen(g[i * stride]);
    sum_gx += widen(g[i * stride]) * normalize.apply(widen(x[i * stride]));
  }
  return {sum_g, sum_gx};
}

// Calls f(reference, first channel, lanes) for planes that are worked on together.
template <typename F>
void for_lanes(const NormShape& shape, const F& f) {
  const int64_t lanes = shape.channels_last ? kLanes : 1,
                tiles = (shape.channels + lanes - 1) / lanes;
  const int64_t each = shape.area * lanes * (shape.samples / shape.references);
  parallel_for(shape.references * tiles, each, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t channel = t % tiles * lanes;
      f(t / tiles, channel, std::min(lanes, shape.channels - channel));
    }
  });
}

// Calls f(lane, place in the sample) for every pixel of the lanes, in the order of memory.
template <typename F>
void for_pixels(const NormShape& shape, int64_t lanes, const F& f) {
  if (shape.channels_last) {
    for (int64_t i = 0; i < shape.area; ++i) {
      for (int64_t lane = 0; lane < lanes; ++lane) f(lane, i * shape.channels + lane);
    }
  } else {
    for (int64_t i = 0; i < shape.area; ++i) f(0, i);
  }
}

struct Cpu {
  using Guard = CpuGuard;

  template <typename T, typename wide>
  static void instance_norm_scope(const NormShape& shape, const T* x, const wide* weight,
                                  const wide* bias, double eps, T* y, wide* mean, wide* rstd,
                                  const Guard&) {
    const int64_t pixel = shape.channels_last ? shape.channels : 1;
    for_lanes(shape, [&](int64_t r, int64_t channel, int64_t lanes) {
      const T* x0 = x + shape.base(r, channel);
      Moments<wide> moments[kLanes];
      for (int64_t i = 0; i < shape.area; i += kChunk) {
        for (int64_t lane = 0; lane < lanes; ++lane) {
          moments[lane].merge(
              moments_of(x0 + i * pixel + lane, std::min(kChunk, shape.area - i), pixel));
        }
      }
      Normalize<wide> normalize[kLanes];
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const int64_t c = channel + lane, plane = r * shape.channels + c;
        mean[plane] = moments[lane].mean;
        rstd[plane] = moments[lane].inverse_deviation(static_cast<wide>(eps));
        normalize[lane] = {mean[plane], weight ? rstd[plane] * weight[c] : rstd[plane],
                           bias ? bias[c] : wide(0)};
      }
      apply(shape, normalize, r, channel, lanes, x, y);
    });
  }

  template <typename T, typename wide>
  static void instance_norm_frozen(const NormShape& shape, const T* x, const wide* mean,
                                   const wide* scale, const wide* shift, T* y, const Guard&) {
    for_lanes(shape, [&](int64_t r, int64_t channel, int64_t lanes) {
      Normalize<wide> normalize[kLanes];
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const int64_t plane = r * shape.channels + channel + lane;
        normalize[lane] = {mean ? mean[plane] : wide(0), scale[plane],
                           shift ? shift[plane] : wide(0)};
      }
      apply(shape, normalize, r, channel, lanes, x, y);
    });
  }

  template <typename T, typename wide>
  static void instance_norm_scope_backward(const NormShape& shape, const T* grad_y, const T* x,
                                           const wide* mean, const wide* rstd, const wide* weight,
                                           T* grad_x, wide* sum_g, wide* sum_gx, const Guard&) {
    const int64_t pixel = shape.channels_last ? shape.channels : 1;
    for_lanes(shape, [&](int64_t r, int64_t channel, int64_t lanes) {
      const int64_t plane = r * shape.channels + channel;
      GradientSums<wide> sums[kLanes];
      Normalize<wide> normalize[kLanes];
      wide scale[kLanes];
      for (int64_t lane = 0; lane < lanes; ++lane) {
        normalize[lane] = {mean[plane + lane], rstd[plane + lane], wide(0)};
        scale[lane] = weight ? rstd[plane + lane] * weight[channel + lane] : rstd[plane + lane];
      }
      for (int64_t s = r; s < shape.samples; s += shape.references) {
        const T *g = grad_y + shape.base(s, channel), *in = x + shape.base(s, channel);
        for (int64_t i = 0; i < shape.area; i += kChunk) {
          for (int64_t lane = 0; lane < lanes; ++lane) {
            const int64_t at = i * pixel + lane, n = std::min(kChunk, shape.area - i);
            sums[lane].merge(gradient_sums_of(g + at, in + at, normalize[lane], n, pixel));
          }
        }
      }
      for (int64_t lane = 0; lane < lanes; ++lane) {
        sum_g[plane + lane] = sums[lane].g;
        sum_gx[plane + lane] = sums[lane].gx;
      }
      for (int64_t s = r; s < shape.samples; s += shape.references) {
        const T *g = grad_y + shape.base(s, channel), *in = x + shape.base(s, channel);
        T* out = grad_x + shape.base(s, channel);
        for_pixels(shape, lanes, [&](int64_t lane, int64_t i) {
          const wide through = s == r ? sums[lane].through_x0(normalize[lane].apply(widen(in[i])),
                                                              static_cast<wide>(shape.area))
                                      : wide(0);
          out[i] = static_cast<T>(scale[lane] * (widen(g[i]) - through));
        });
      }
    });
  }

  template <typename T, typename wide>
  static void apply(const NormShape& shape, const Normalize<wide>* normalize, int64_t r,
                    int64_t channel, int64_t lanes, const T* x, T* y) {
    for (int64_t s = r; s < shape.samples; s += shape.references) {
      const T* in = x + shape.base(s, channel);
      T* out = y + shape.base(s, channel);
      for_pixels(shape, lanes, [&](int64_t lane, int64_t i) {
        out[i] = static_cast<T>(normalize[lane].apply(widen(in[i])));
      });
    }
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(linscope, CPU, m) { InstanceNormOps<Cpu>::implement(m); }
