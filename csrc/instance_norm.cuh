// Instance normalisation scope: mean and deviation of each reference plane, applied to the plane
// and to its probes'. A block takes one contiguous plane, or 32 neighbouring channels of a
// channels_last sample with 8 threads each. Planes that fit on chip are read from memory once.
#pragma once

#include "launch.h"
#include "scopes.h"

namespace linscope {

constexpr int kWarp = 32, kWarps = kBlock / kWarp;

template <typename T>
__device__ __forceinline__ Moments<T> shuffle_xor(const Moments<T>& m, int d) {
  return {__shfl_xor_sync(0xffffffffu, m.count, d), __shfl_xor_sync(0xffffffffu, m.mean, d),
          __shfl_xor_sync(0xffffffffu, m.squares, d)};
}

template <typename T>
__device__ __forceinline__ GradientSums<T> shuffle_xor(const GradientSums<T>& s, int d) {
  return {__shfl_xor_sync(0xffffffffu, s.g, d), __shfl_xor_sync(0xffffffffu, s.gx, d)};
}

template <typename T>
union Uninitialized {
  T value;
  __device__ Uninitialized() {}
};

// The part of the planes that one thread walks, and how the threads of a plane meet.
template <bool LAST, int VEC>
struct Team {
  static_assert(!LAST || VEC == 1,
                "neighbours of a channels_last plane are not neighbours in memory");
  int64_t first, step;

  __device__ Team()
      : first(LAST ? threadIdx.x / kWarp : threadIdx.x * VEC), step(LAST ? kWarps : kBlock * VEC) {}

  // Merges a part of every thread of the plane, in a fixed order; all of them get the result.
  template <typename Part>
  __device__ Part meet(Part part, Uninitialized<Part>* parts) const {
    if (!LAST) {
      for (int d = kWarp / 2; d > 0; d /= 2) part.merge(shuffle_xor(part, d));
    }
    parts[threadIdx.x].value = part;
    __syncthreads();
    const int column = LAST ? threadIdx.x % kWarp : 0;
    Part whole = parts[column].value;
    for (int w = 1; w < kWarps; ++w) whole.merge(parts[w * kWarp + column].value);
    __syncthreads();
    return whole;
  }
};

template <typename T, int VEC>
__device__ __forceinline__ Moments<wide_t<T>> moments_of(const Pack<T, VEC>& pack) {
  using wide = wide_t<T>;
  Moments<wide> m{wide(VEC), widen(pack.v[0]), wide(0)};
  if (VEC > 1) {
#pragma unroll
    for (int k = 1; k < VEC; ++k) m.mean += widen(pack.v[k]);
    m.mean /= VEC;
#pragma unroll
    for (int k = 0; k < VEC; ++k)
      m.squares += (widen(pack.v[k]) - m.mean) * (widen(pack.v[k]) - m.mean);
  }
  return m;
}

// Calls f(reference, channel, active) for every plane of this thread's team; inactive threads only
// meet the others.
template <bool LAST, typename F>
__device__ __forceinline__ void for_planes(const NormShape& shape, const F& f) {
  const int64_t tiles = LAST ? (shape.channels + kWarp - 1) / kWarp : shape.channels;
  for (int64_t block = blockIdx.x; block < shape.references * tiles; block += gridDim.x) {
    const int64_t tile = block % tiles, channel = LAST ? tile * kWarp + threadIdx.x % kWarp : tile;
    f(block / tiles, channel, channel < shape.channels);
  }
}

template <typename T, int VEC>
__device__ __forceinline__ Pack<T, VEC> normalized(const Normalize<wide_t<T>>& normalize,
                                                   Pack<T, VEC> pack) {
#pragma unroll
  for (int k = 0; k < VEC; ++k) narrow(normalize.apply(widen(pack.v[k])), pack.v[k]);
  return pack;
}

template <typename T, bool LAST, int VEC, bool CACHED>
__global__ void __launch_bounds__(kBlock, kResidentWithSums<T>)
    instance_norm_scope_kernel(NormShape shape, const T* __restrict__ x,
                               const wide_t<T>* __restrict__ weight,
                               const wide_t<T>* __restrict__ bias, wide_t<T> eps, T* __restrict__ y,
                               wide_t<T>* __restrict__ mean, wide_t<T>* __restrict__ rstd) {
  using wide = wide_t<T>;
  SHARED_DYN(T, cache);
  SHARED_ARRAY(Uninitialized<Moments<wide>>, parts, kBlock);
  const Team<LAST, VEC> team;
  const int64_t pixel = LAST ? shape.channels : 1;
  // A thread takes back from the cache only what it has put there.
  const auto kept = [&](int64_t i) { return cache + (LAST ? i * kWarp + threadIdx.x % kWarp : i); };
  for_planes<LAST>(shape, [&](int64_t r, int64_t channel, bool active) {
    const int64_t area = active ? shape.area : 0, reference = shape.base(r, channel);
    Moments<wide> moments;
    for (int64_t i = team.first; i < area; i += team.step) {
      const Pack<T, VEC> pack = load<VEC>(x + reference + i * pixel);
      if (CACHED) store_shared(kept(i), pack);
      moments.merge(moments_of(pack));
    }
    moments = team.meet(moments, parts);
    if (!active) return;
    const wide inverse = moments.inverse_deviation(eps);
    if (team.first == 0) {
      mean[r * shape.channels + channel] = moments.mean;
      rstd[r * shape.channels + channel] = inverse;
    }
    const Normalize<wide> normalize{moments.mean, weight ? inverse * weight[channel] : inverse,
                                    bias ? bias[channel] : wide(0)};
    for (int64_t i = team.first; i < area; i += team.step) {
      const Pack<T, VEC> pack = load<VEC>(CACHED ? kept(i) : x + reference + i * pixel);
      store(y + reference + i * pixel, normalized(normalize, pack));
    }
    for (int64_t s = r + shape.references; s < shape.samples; s += shape.references) {
      const int64_t base = shape.base(s, channel);
      for (int64_t i = team.first; i < area; i += team.step) {
        store(y + base + i * pixel, normalized(normalize, load<VEC>(x + base + i * pixel)));
      }
    }
  });
}

template <typename T, bool LAST, int VEC>
__global__ void __launch_bounds__(kBlock, kResidentWithSums<T>)
    instance_norm_scope_backward_kernel(NormShape shape, const T* __restrict__ grad_y,
                                        const T* __restrict__ x, const wide_t<T>* __restrict__ mean,
                                        const wide_t<T>* __restrict__ rstd,
                                        const wide_t<T>* __restrict__ weight,
                                        T* __restrict__ grad_x, wide_t<T>* __restrict__ sum_g,
                                        wide_t<T>* __restrict__ sum_gx) {
  using wide = wide_t<T>;
  SHARED_ARRAY(Uninitialized<GradientSums<wide>>, parts, kBlock);
  const Team<LAST, VEC> team;
  const int64_t pixel = LAST ? shape.channels : 1;
  for_planes<LAST>(shape, [&](int64_t r, int64_t channel, bool active) {
    const int64_t area = active ? shape.area : 0, plane = r * shape.channels + channel;
    const wide inverse = active ? rstd[plane] : wide(0);
    const Normalize<wide> normalize{active ? mean[plane] : wide(0), inverse, wide(0)};
    GradientSums<wide> sums;
    for (int64_t s = r; s < shape.samples; s += shape.references) {
      const int64_t base = shape.base(s, channel);
      for (int64_t i = team.first; i < area; i += team.step) {
        const Pack<T, VEC> g = load<VEC>(grad_y + base + i * pixel),
                           in = load<VEC>(x + base + i * pixel);
#pragma unroll
        for (int k = 0; k < VEC; ++k) {
          sums.merge({widen(g.v[k]), widen(g.v[k]) * normalize.apply(widen(in.v[k]))});
        }
      }
    }
    sums = team.meet(sums, parts);
    if (!active) return;
    if (team.first == 0) {
      sum_g[plane] = sums.g;
      sum_gx[plane] = sums.gx;
    }
    const wide scale = weight ? inverse * weight[channel] : inverse;
    for (int64_t s = r; s < shape.samples; s += shape.references) {
      const int64_t base = shape.base(s, channel);
      for (int64_t i = team.first; i < area; i += team.step) {
        Pack<T, VEC> g = load<VEC>(grad_y + base + i * pixel);
        if (s == r) {
          const Pack<T, VEC> in = load<VEC>(x + base + i * pixel);
#pragma unroll
          for (int k = 0; k < VEC; ++k) {
            narrow(sums.reference(widen(g.v[k]), normalize.apply(widen(in.v[k])), scale,
                                  wide(shape.area)),
                   g.v[k]);
          }
        } else {
#pragma unroll
          for (int k = 0; k < VEC; ++k) narrow(scale * widen(g.v[k]), g.v[k]);
        }
        store(grad_x + base + i * pixel, g);
      }
    }
  });
}

// y = (x - mean) scale + shift with one mean, scale and shift per reference and channel; null mean
// and shift are 0. Rows are contiguous planes, or whole channels_last samples.
template <typename T, bool LAST, int VEC>
__global__ void __launch_bounds__(kBlock, kResident)
    instance_norm_frozen_kernel(NormShape shape, const T* __restrict__ x,
                                const wide_t<T>* __restrict__ mean,
                                const wide_t<T>* __restrict__ scale,
                                const wide_t<T>* __restrict__ shift, T* __restrict__ y) {
  using wide = wide_t<T>;
  const int64_t rows = LAST ? shape.references : shape.references * shape.channels;
  const int64_t row_size = LAST ? shape.area * shape.channels : shape.area;
  const int64_t stride = shape.references * shape.channels * shape.area;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * VEC;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    for (int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * VEC;
         i < row_size; i += step) {
      const int64_t plane = LAST ? row * shape.channels + i % shape.channels : row;
      const Normalize<wide> normalize{mean ? mean[plane] : wide(0), scale[plane],
                                      shift ? shift[plane] : wide(0)};
      for (int64_t at = row * row_size + i; at < shape.samples * shape.channels * shape.area;
           at += stride) {
        store(y + at, normalized(normalize, load<VEC>(x + at)));
      }
    }
  }
}

inline unsigned norm_blocks(const NormShape& shape) {
  const int64_t tiles = shape.channels_last ? (shape.channels + kWarp - 1) / kWarp : shape.channels;
  return static_cast<unsigned>(std::min<int64_t>(shape.references * tiles, int64_t{1} << 30));
}

// Calls f.operator()<LAST, VEC>() with the widest accesses that the tensors' layout allows.
template <typename T, typename F>
void dispatch_layout(const NormShape& shape, bool all_aligned, const F& f) {
  constexpr int vec = widest<T>();
  if (shape.channels_last) {
    f.template operator()<true, 1>();
  } else if (all_aligned && shape.area % vec == 0) {
    f.template operator()<false, vec>();
  } else {
    f.template operator()<false, 1>();
  }
}

// `shared_limit`: bytes of shared memory that a block may have on this device.
template <typename T>
void launch_instance_norm_scope(const NormShape& shape, const T* x, const wide_t<T>* weight,
                                const wide_t<T>* bias, double eps, T* y, wide_t<T>* mean,
                                wide_t<T>* rstd, int64_t shared_limit, cudaStream_t stream) {
  // Where 8 threads walk a plane, a block hides little of memory's latency: others must fit beside.
  const int64_t planes = shape.channels_last ? kWarp : 1,
                limit = shape.channels_last ? shared_limit / kResident : shared_limit;
  const int64_t plane_bytes = planes * shape.area * static_cast<int64_t>(sizeof(T));
  const bool fits =
      plane_bytes + static_cast<int64_t>(sizeof(Moments<wide_t<T>>) * kBlock) <= limit;
  dispatch_layout<T>(shape, aligned(x) && aligned(y), [&]<bool LAST, int VEC>() {
    if (fits) {
      launch(instance_norm_scope_kernel<T, LAST, VEC, true>, norm_blocks(shape), kBlock,
             plane_bytes, stream, shape, x, weight, bias, eps, y, mean, rstd);
    } else {
      launch(instance_norm_scope_kernel<T, LAST, VEC, false>, norm_blocks(shape), kBlock, 0, stream,
             shape, x, weight, bias, eps, y, mean, rstd);
    }
  });
}

template <typename T>
void launch_instance_norm_scope_backward(const NormShape& shape, const T* grad_y, const T* x,
                                         const wide_t<T>* mean, const wide_t<T>* rstd,
                                         const wide_t<T>* weight, T* grad_x, wide_t<T>* sum_g,
                                         wide_t<T>* sum_gx, cudaStream_t stream) {
  dispatch_layout<T>(
      shape, aligned(grad_y) && aligned(x) && aligned(grad_x), [&]<bool LAST, int VEC>() {
        launch(instance_norm_scope_backward_kernel<T, LAST, VEC>, norm_blocks(shape), kBlock, 0,
               stream, shape, grad_y, x, mean, rstd, weight, grad_x, sum_g, sum_gx);
      });
}

template <typename T>
void launch_instance_norm_frozen(const NormShape& shape, const T* x, const wide_t<T>* mean,
                                 const wide_t<T>* scale, const wide_t<T>* shift, T* y,
                                 cudaStream_t stream) {
  dispatch_layout<T>(shape, aligned(x) && aligned(y), [&]<bool LAST, int VEC>() {
    const int64_t rows = LAST ? shape.references : shape.references * shape.channels;
    const int64_t row_size = LAST ? shape.area * shape.channels : shape.area;
    const dim3 grid(blocks_for(row_size / VEC),
                    static_cast<unsigned>(std::min<int64_t>(rows, 65535)));
    launch(instance_norm_frozen_kernel<T, LAST, VEC>, grid, kBlock, 0, stream, shape, x, mean,
           scale, shift, y);
  });
}

}  // namespace linscope
