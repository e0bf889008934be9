// Instance normalisation scope: mean and deviation of each reference plane, applied to the plane
// and to its probes'.
//
// Planes are reduced by as many blocks as fill the device, whose parts meet in a fixed order; what
// is then known is applied element by element. Contiguous planes that fit on chip are taken by one
// block each, and read from memory once.
#pragma once

#include "pointwise.cuh"

namespace linscope {

constexpr unsigned kWarp = 32, kWarps = kBlock / kWarp;
// Each multiprocessor's blocks at a time, and as many blocks in all as an H100 takes at a time: a
// block's sums meet once, at some cost.
constexpr unsigned kResidentInReduction = kTuring ? 2 : 3;
LAUNCH_LIMIT(kReducingBlocks, 384);

// One block each takes planes up to this size; larger ones keep too few loads under way.
LAUNCH_LIMIT(kOnChip, 64 * 1024);
// With more probes a block would be at them for long.
LAUNCH_LIMIT(kFewProbes, 4);

// Adds up the lanes of a warp whose numbers agree below `lanes`.
template <typename W>
__device__ __forceinline__ W warp_sum(W x, unsigned lanes) {
  for (unsigned d = kWarp / 2; d >= lanes; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
  return x;
}

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

// VEC numbers of float32 or better, of neighbouring planes.
template <int VEC, typename W>
struct Statistics {
  W v[VEC];

  __device__ __forceinline__ void load_from(const W* p, W missing) {
    constexpr int width = VEC * sizeof(W) <= 16 ? VEC : 16 / static_cast<int>(sizeof(W));
#pragma unroll
    for (int k = 0; k < VEC; k += width) {
      Pack<W, width> pack;
      if (p) pack = load<width>(p + k);
#pragma unroll
      for (int j = 0; j < width; ++j) v[k + j] = p ? pack.v[j] : missing;
    }
  }
};

// ---- Applied, element by element ----

// Where the statistics of an element's plane are. In a channels_last pack the elements are of VEC
// channels, otherwise all of one.
template <bool LAST, int VEC>
struct PlaneOf {
  static constexpr int channels = LAST ? VEC : 1;

  int64_t count;  // of channels
  Divisor inner;  // channels, or the area of a plane

  explicit PlaneOf(const NormShape& shape)
      : count(shape.channels), inner(LAST ? shape.channels : shape.area) {}

  __device__ __forceinline__ int64_t channel(int64_t at) const {
    return LAST ? inner.modulo(at) : inner.divide(at);
  }
};

// y = (x - mean) scale + shift with one mean, scale and shift per reference and channel; null mean
// and shift are 0.
template <typename T, bool LAST, int VEC>
struct Normalization {
  using wide = wide_t<T>;
  using Planes = PlaneOf<LAST, VEC>;
  static constexpr int packs = VEC > 4 ? kPacks / 2 : kPacks;

  struct Found {
    Statistics<Planes::channels, wide> mean, scale, shift;
  };
  // What is one number to a pack is fetched beside it; several would not leave room for packs.
  using Decision = std::conditional_t<LAST, int64_t, Found>;

  Planes planes;
  const wide *mean, *scale, *shift;

  __device__ __forceinline__ Decision decision(int64_t, int64_t row, int64_t at) const {
    const int64_t plane = row * planes.count + planes.channel(at);
    if constexpr (LAST) {
      return plane;
    } else {
      return found(plane);
    }
  }

  __device__ __forceinline__ Pack<T, VEC> apply(const Decision& decision, Pack<T, VEC> pack) const {
    Found d;
    if constexpr (LAST) {
      d = found(decision);
    } else {
      d = decision;
    }
#pragma unroll
    for (int k = 0; k < VEC; ++k) {
      const int c = LAST ? k : 0;
      const Normalize<wide> normalize{d.mean.v[c], d.scale.v[c], d.shift.v[c]};
      narrow(normalize.apply(widen(pack.v[k])), pack.v[k]);
    }
    return pack;
  }

  __device__ __forceinline__ Found found(int64_t plane) const {
    Found d;
    d.mean.load_from(mean ? mean + plane : nullptr, 0);
    d.scale.load_from(scale + plane, 0);
    d.shift.load_from(shift ? shift + plane : nullptr, 0);
    return d;
  }
};

// grad_x of probes and references, once the sums over both are known.
template <typename T, bool LAST, int VEC>
struct NormGradient {
  using wide = wide_t<T>;
  using Planes = PlaneOf<LAST, VEC>;
  static constexpr int packs = LAST ? 1 : 2;

  struct Decision {
    wide scale[Planes::channels], through_x0[VEC];
  };

  Planes planes;
  const T* x;
  int64_t sample_size;
  wide area;
  const wide *mean, *rstd, *weight, *sum_g, *sum_gx;

  __device__ __forceinline__ Decision decision(int64_t sample, int64_t row, int64_t at) const {
    const int64_t channel = planes.channel(at), plane = row * planes.count + channel;
    Statistics<Planes::channels, wide> inverse, factor, m, g, gx;
    inverse.load_from(rstd + plane, 0);
    factor.load_from(weight ? weight + channel : nullptr, 1);
    Decision d;
#pragma unroll
    for (int c = 0; c < Planes::channels; ++c) d.scale[c] = inverse.v[c] * factor.v[c];
    if (sample != row) {
#pragma unroll
      for (int k = 0; k < VEC; ++k) d.through_x0[k] = 0;
      return d;
    }
    const Pack<T, VEC> x0 = load<VEC>(x + row * sample_size + at);
    m.load_from(mean + plane, 0);
    g.load_from(sum_g + plane, 0);
    gx.load_from(sum_gx + plane, 0);
#pragma unroll
    for (int k = 0; k < VEC; ++k) {
      const int c = LAST ? k : 0;
      const Normalize<wide> normalize{m.v[c], inverse.v[c], 0};
      const GradientSums<wide> sums{g.v[c], gx.v[c]};
      d.through_x0[k] = sums.through_x0(normalize.apply(widen(x0.v[k])), area);
    }
    return d;
  }

  __device__ __forceinline__ Pack<T, VEC> apply(const Decision& d, Pack<T, VEC> g) const {
#pragma unroll
    for (int k = 0; k < VEC; ++k) {
      narrow(d.scale[LAST ? k : 0] * (widen(g.v[k]) - d.through_x0[k]), g.v[k]);
    }
    return g;
  }
};

// ---- Reduced ----

// The packs of a plane that a thread walks: pixels of a chunk, of which neighbours in memory have
// VEC to a pack, or, channels_last, VEC neighbouring planes at one pixel.
struct Walk {
  int64_t first, end, step, pitch;  // of packs; elements from one pack to the next

  // Calls f(number of a pack) for every `together`-th, of as many that are taken at a time.
  template <int together, typename F>
  __device__ __forceinline__ void every(const F& f) const {
    for (int64_t i = first; i < end; i += together * step) f(i);
  }
};

// Plain sums of differences from a number near the mean, the same for a warp: of its few values no
// digits cancel.
template <typename W>
struct Differences {
  W pilot = 0, sum = 0, squares = 0, count = 0;

  __device__ __forceinline__ void add(W x) {
    const W d = x - pilot;
    sum += d;
    squares += d * d;
  }
  __device__ __forceinline__ Moments<W> of_warp(unsigned lanes) const {
    const W n = warp_sum(count, lanes), s = warp_sum(sum, lanes), q = warp_sum(squares, lanes);
    if (n == 0) return {};
    const W mean = s / n, rest = q - s * mean;
    return {n, pilot + mean, rest < 0 ? W(0) : rest};  // NaN stays
  }
};

// The moments of reference planes, of a warp's part. With CACHED a thread keeps what it reads in
// shared memory.
template <typename T, bool LAST, int VEC>
struct ReduceMoments {
  using wide = wide_t<T>;
  using Part = Moments<wide>;
  static constexpr int channels = LAST ? VEC : 1;

  const T* x;

  template <bool CACHED = false>
  __device__ __forceinline__ void operator()(const NormShape& shape, int64_t r, int64_t channel,
                                             const Walk& walk, unsigned lanes,
                                             Part (&parts)[channels], T* cache = nullptr) const {
    const T* plane = x + shape.base(r, channel);
    Differences<wide> sums[channels];
    const bool any = walk.first < walk.end;
    Pack<T, VEC> first{};
    if (any) first = load<VEC>(plane + walk.first * walk.pitch);
    const wide starting = warp_sum(any ? wide(1) : wide(0), lanes);
#pragma unroll
    for (int c = 0; c < channels; ++c) {
      const wide all = warp_sum(any ? widen(first.v[c]) : wide(0), lanes);
      sums[c].pilot = any ? all / starting : wide(0);
    }
    int64_t count = 0;
    walk.template every<kPacks>([&](int64_t i) {
      Loaded<T, VEC> packs[kPacks];
#pragma unroll
      for (int j = 0; j < kPacks; ++j) {
        const int64_t at = i + j * walk.step;
        if (at < walk.end) packs[j] = load<VEC>(plane + at * walk.pitch);
      }
#pragma unroll
      for (int j = 0; j < kPacks; ++j) {
        const int64_t at = i + j * walk.step;
        if (at >= walk.end) break;
        const Pack<T, VEC> pack = packs[j];
        if constexpr (CACHED) store_shared(cache + at * VEC, pack);
#pragma unroll
        for (int k = 0; k < VEC; ++k) sums[LAST ? k : 0].add(widen(pack.v[k]));
        count += LAST ? 1 : VEC;
      }
    });
#pragma unroll
    for (int c = 0; c < channels; ++c) {
      sums[c].count = static_cast<wide>(count);
      parts[c] = sums[c].of_warp(lanes);
    }
  }
};

// What references and probes say together about a plane's mean and deviation.
template <typename T, bool LAST, int VEC>
struct ReduceGradients {
  using wide = wide_t<T>;
  using Part = GradientSums<wide>;
  static constexpr int channels = LAST ? VEC : 1, together = 2;

  const T *grad_y, *x;
  const wide *mean, *rstd;

  __device__ __forceinline__ void operator()(const NormShape& shape, int64_t r, int64_t channel,
                                             const Walk& walk, unsigned lanes,
                                             Part (&parts)[channels]) const {
    const int64_t at_plane = r * shape.channels + channel;
    Statistics<channels, wide> m, inverse;
    m.load_from(mean + at_plane, 0);
    inverse.load_from(rstd + at_plane, 0);
    for (int64_t s = r; s < shape.samples; s += shape.references) {
      const int64_t base = shape.base(s, channel);
      walk.template every<together>([&](int64_t i) {
        Loaded<T, VEC> g[together], in[together];
#pragma unroll
        for (int j = 0; j < together; ++j) {
          const int64_t at = i + j * walk.step;
          if (at >= walk.end) break;
          g[j] = load<VEC>(grad_y + base + at * walk.pitch);
          in[j] = load<VEC>(x + base + at * walk.pitch);
        }
#pragma unroll
        for (int j = 0; j < together; ++j) {
          if (i + j * walk.step >= walk.end) break;
          const Pack<T, VEC> grads = g[j], values = in[j];
#pragma unroll
          for (int k = 0; k < VEC; ++k) {
            const int c = LAST ? k : 0;
            const Normalize<wide> normalize{m.v[c], inverse.v[c], 0};
            const wide grad = widen(grads.v[k]);
            parts[c].merge({grad, grad * normalize.apply(widen(values.v[k]))});
          }
        }
      });
    }
#pragma unroll
    for (int c = 0; c < channels; ++c) {
      parts[c] = {warp_sum(parts[c].g, lanes), warp_sum(parts[c].gx, lanes)};
    }
  }
};

// Merges, in a fixed order, the parts of a block's warps, of which each of the first `lanes` lanes
// has its own. Thread n * lanes + lane gets the whole of the lane's n-th parts.
template <unsigned MAX_LANES, typename Part, int N>
__device__ __forceinline__ Part meet(Part (&parts)[N], unsigned lanes) {
  constexpr unsigned size = kWarps * N * MAX_LANES;
  SHARED_ARRAY(Uninitialized<Part>, met, size);
  const unsigned warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    if (lane < lanes) met[(warp * N + n) * lanes + lane].value = parts[n];
  }
  __syncthreads();
  Part whole;
  if (threadIdx.x < lanes * N) {
    for (unsigned w = 0; w < kWarps; ++w) whole.merge(met[w * N * lanes + threadIdx.x].value);
  }
  return whole;
}

// How planes are cut for a reduction: `chunks` of `span` packs, by `tiles` of channels.
struct Cut {
  unsigned chunks, tiles;
  int64_t span;
  unsigned lanes;  // neighbouring packs of a channels_last pixel that a warp takes

  static Cut of(const NormShape& shape, int vec) {
    unsigned lanes = 1;
    int64_t tiles = shape.channels, packs = shape.area / vec;
    if (shape.channels_last) {
      packs = shape.area;
      const int64_t across = shape.channels / vec;
      while (lanes < kWarp && lanes < across) lanes *= 2;
      tiles = (across + lanes - 1) / lanes;
    }
    // Each thread shall have loads to hide another's behind.
    const int64_t least = kBlock / lanes * kPacks, most = (packs + least - 1) / least;
    const int64_t wanted =
        std::clamp<int64_t>(kReducingBlocks / (shape.references * tiles), 1, most);
    const int64_t span = (packs + wanted - 1) / wanted;
    return {static_cast<unsigned>((packs + span - 1) / span), static_cast<unsigned>(tiles), span,
            lanes};
  }
};

// Each block reduces a chunk of a tile of planes. What it finds of a plane goes to `finish` if it
// is all of it, otherwise to its place among the parts.
template <typename Reduce, typename Finish, bool LAST, int VEC>
__global__ void __launch_bounds__(kBlock, kResidentInReduction)
    reduce_kernel(Reduce reduce, Finish finish, NormShape shape, Cut cut,
                  typename Reduce::Part* parts) {
  const unsigned of_all = blockIdx.x / cut.chunks, chunk = blockIdx.x - of_all * cut.chunks,
                 r = of_all / cut.tiles, tile = of_all - r * cut.tiles;
  const unsigned lane = threadIdx.x % cut.lanes, row = threadIdx.x / cut.lanes;
  const int64_t begin = chunk * cut.span, packs = LAST ? shape.area : shape.area / VEC;
  const auto channel_of = [&](unsigned lane) {
    return LAST ? (int64_t{tile} * cut.lanes + lane) * VEC : int64_t{tile};
  };
  typename Reduce::Part mine[Reduce::channels];
  const bool active = channel_of(lane) < shape.channels;
  const int64_t end = begin + cut.span < packs ? begin + cut.span : packs;
  const Walk walk{begin + row, active ? end : 0, kBlock / cut.lanes, LAST ? shape.channels : VEC};
  reduce(shape, r, channel_of(active ? lane : 0), walk, cut.lanes, mine);
  const auto whole = meet<LAST ? kWarp : 1>(mine, cut.lanes);
  if (threadIdx.x >= cut.lanes * Reduce::channels) return;
  const int64_t channel = channel_of(threadIdx.x % cut.lanes) + threadIdx.x / cut.lanes;
  if (channel >= shape.channels) return;
  const int64_t plane = r * shape.channels + channel;
  if (cut.chunks == 1) {
    finish(plane, channel, whole);
  } else {
    parts[plane * cut.chunks + chunk] = whole;
  }
}

// A block merges the parts of a plane.
template <typename Part, typename Finish>
__global__ void __launch_bounds__(kBlock, kResident)
    finish_kernel(Finish finish, int64_t channels, int64_t chunks, const Part* __restrict__ parts) {
  const int64_t plane = blockIdx.x;
  Part mine[1];
  for (int64_t chunk = threadIdx.x; chunk < chunks; chunk += kBlock) {
    mine[0].merge(parts[plane * chunks + chunk]);
  }
  Part whole = meet<kWarp>(mine, kWarp);
  if (threadIdx.x >= kWarp) return;
  for (int d = kWarp / 2; d > 0; d /= 2) whole.merge(shuffle_xor(whole, d));
  if (threadIdx.x == 0) finish(plane, plane % channels, whole);
}

// mean and rstd, and what they are with weight and bias.
template <typename W>
struct FinishMoments {
  const W *weight, *bias;
  W eps;
  W *mean, *rstd, *scale, *shift;

  __device__ __forceinline__ Normalize<W> operator()(int64_t plane, int64_t channel,
                                                     const Moments<W>& moments) const {
    const W inverse = moments.inverse_deviation(eps);
    const Normalize<W> normalize{moments.mean, weight ? inverse * weight[channel] : inverse,
                                 bias ? bias[channel] : W(0)};
    mean[plane] = moments.mean;
    rstd[plane] = inverse;
    if (scale) {
      scale[plane] = normalize.scale;
      shift[plane] = normalize.shift;
    }
    return normalize;
  }
};

template <typename W>
struct FinishGradients {
  W *sum_g, *sum_gx;

  __device__ __forceinline__ void operator()(int64_t plane, int64_t,
                                             const GradientSums<W>& sums) const {
    sum_g[plane] = sums.g;
    sum_gx[plane] = sums.gx;
  }
};

// ---- Planes on chip ----

template <typename T, int VEC>
__global__ void __launch_bounds__(kBlock, kResidentWithSums<T>)
    instance_norm_on_chip_kernel(NormShape shape, const T* __restrict__ x,
                                 FinishMoments<wide_t<T>> finish, T* __restrict__ y) {
  using wide = wide_t<T>;
  SHARED_DYN(T, cache);
  SHARED_ARRAY(Uninitialized<Normalize<wide>>, found, 1);
  const int64_t r = blockIdx.x / shape.channels, channel = blockIdx.x % shape.channels;
  const Walk walk{threadIdx.x, shape.area / VEC, kBlock, VEC};
  Moments<wide> parts[1];
  const ReduceMoments<T, false, VEC> reduce{x};
  reduce.template operator()<true>(shape, r, channel, walk, 1, parts, cache);
  const Moments<wide> whole = meet<1>(parts, 1);
  if (threadIdx.x == 0) found[0].value = finish(blockIdx.x, channel, whole);
  __syncthreads();
  const Normalize<wide> normalize = found[0].value;
  const auto applied = [&](Pack<T, VEC> pack) {
#pragma unroll
    for (int k = 0; k < VEC; ++k) narrow(normalize.apply(widen(pack.v[k])), pack.v[k]);
    return pack;
  };
  const int64_t base = shape.base(r, channel);
  // A thread takes back from the cache only what it has put there.
  for (int64_t i = walk.first; i < walk.end; i += walk.step) {
    store(y + base + i * VEC, applied(load<VEC>(cache + i * VEC)));
  }
  for (int64_t s = r + shape.references; s < shape.samples; s += shape.references) {
    const int64_t base = shape.base(s, channel);
    walk.template every<kPacks>([&](int64_t i) {
      Loaded<T, VEC> packs[kPacks];
#pragma unroll
      for (int j = 0; j < kPacks; ++j) {
        const int64_t at = i + j * walk.step;
        if (at < walk.end) packs[j] = load<VEC>(x + base + at * VEC);
      }
#pragma unroll
      for (int j = 0; j < kPacks; ++j) {
        const int64_t at = i + j * walk.step;
        if (at < walk.end) store(y + base + at * VEC, applied(packs[j]));
      }
    });
  }
}

// ---- Launched ----

// Calls f.operator()<LAST, VEC>() with the widest packs that lie in planes, or, channels_last, in
// pixels, and in addresses; there each pack has as many statistics.
template <typename T, typename F>
void dispatch_norm(const NormShape& shape, std::initializer_list<const void*> data,
                   std::initializer_list<const void*> statistics, const F& f) {
  if (!shape.channels_last) {
    return dispatch_width<T>(
        [&]<int VEC>() { return shape.area % VEC == 0 && aligned(VEC * sizeof(T), data); },
        [&]<int VEC>() { f.template operator()<false, VEC>(); });
  }
  dispatch_width<T>(
      [&]<int VEC>() {
        const size_t bytes = std::min<size_t>(VEC * sizeof(wide_t<T>), 16);
        return shape.channels % VEC == 0 && aligned(VEC * sizeof(T), data) &&
               aligned(bytes, statistics);
      },
      [&]<int VEC>() { f.template operator()<true, VEC>(); });
}

// Numbers of float32 or better that a scope needs beside its results: scale and shift, and the
// parts of the planes.
inline int64_t norm_workspace(const NormShape& shape, int64_t part) {
  const int64_t planes = shape.references * shape.channels;
  const int64_t tiles =
      shape.channels_last ? (shape.channels + kBlock - 1) / kBlock : shape.channels;
  const int64_t chunks = std::max<int64_t>(1, kReducingBlocks / (shape.references * tiles));
  return planes * (2 + part * chunks);
}

template <typename T>
int64_t instance_norm_scope_workspace(const NormShape& shape) {
  return norm_workspace(shape, sizeof(Moments<wide_t<T>>) / sizeof(wide_t<T>));
}

template <typename T>
int64_t instance_norm_backward_workspace(const NormShape& shape) {
  return norm_workspace(shape, sizeof(GradientSums<wide_t<T>>) / sizeof(wide_t<T>));
}

template <bool LAST, int VEC, typename Reduce, typename Finish>
void launch_reduction(const Reduce& reduce, const Finish& finish, const NormShape& shape,
                      void* workspace, cudaStream_t stream) {
  using Part = typename Reduce::Part;
  const Cut cut = Cut::of(shape, VEC);
  const int64_t planes = shape.references * shape.channels;
  Part* parts = static_cast<Part*>(workspace);
  launch(reduce_kernel<Reduce, Finish, LAST, VEC>,
         static_cast<unsigned>(shape.references * cut.tiles * cut.chunks), kBlock, 0, stream,
         reduce, finish, shape, cut, parts);
  if (cut.chunks > 1) {
    launch(finish_kernel<Part, Finish>, static_cast<unsigned>(planes), kBlock, 0, stream, finish,
           shape.channels, cut.chunks, parts);
  }
}

inline BatchShape batch_of(const NormShape& shape) {
  return {shape.samples, shape.references, shape.channels * shape.area};
}

// `shared_limit`: bytes of shared memory that a block may have on this device.
template <typename T>
void launch_instance_norm_scope(const NormShape& shape, const T* x, const wide_t<T>* weight,
                                const wide_t<T>* bias, double eps, T* y, wide_t<T>* mean,
                                wide_t<T>* rstd, wide_t<T>* workspace, int64_t shared_limit,
                                cudaStream_t stream) {
  using wide = wide_t<T>;
  const int64_t planes = shape.references * shape.channels,
                plane_bytes = shape.area * static_cast<int64_t>(sizeof(T));
  const bool on_chip = !shape.channels_last && plane_bytes <= std::min(kOnChip, shared_limit / 2) &&
                       shape.samples <= shape.references * (1 + kFewProbes);
  wide *scale = workspace, *shift = workspace + planes, *parts = workspace + 2 * planes;
  const FinishMoments<wide> finish{weight,
                                   bias,
                                   static_cast<wide>(eps),
                                   mean,
                                   rstd,
                                   on_chip ? nullptr : scale,
                                   on_chip ? nullptr : shift};
  const auto run = [&]<bool LAST, int VEC>() {
    if constexpr (!LAST) {
      if (on_chip) {
        return launch(instance_norm_on_chip_kernel<T, VEC>, static_cast<unsigned>(planes), kBlock,
                      plane_bytes, stream, shape, x, finish, y);
      }
    }
    launch_reduction<LAST, VEC>(ReduceMoments<T, LAST, VEC>{x}, finish, shape, parts, stream);
    const Normalization<T, LAST, VEC> op{PlaneOf<LAST, VEC>(shape), mean, scale, shift};
    launch_frozen<VEC>(op, batch_of(shape), x, y, stream);
  };
  dispatch_norm<T>(shape, {x, y}, {workspace, mean}, run);
}

template <typename T>
void launch_instance_norm_scope_backward(const NormShape& shape, const T* grad_y, const T* x,
                                         const wide_t<T>* mean, const wide_t<T>* rstd,
                                         const wide_t<T>* weight, T* grad_x, wide_t<T>* sum_g,
                                         wide_t<T>* sum_gx, wide_t<T>* workspace,
                                         cudaStream_t stream) {
  const auto run = [&]<bool LAST, int VEC>() {
    launch_reduction<LAST, VEC>(ReduceGradients<T, LAST, VEC>{grad_y, x, mean, rstd},
                                FinishGradients<wide_t<T>>{sum_g, sum_gx}, shape, workspace,
                                stream);
    const NormGradient<T, LAST, VEC> op{PlaneOf<LAST, VEC>(shape),
                                        x,
                                        shape.channels * shape.area,
                                        static_cast<wide_t<T>>(shape.area),
                                        mean,
                                        rstd,
                                        weight,
                                        sum_g,
                                        sum_gx};
    launch_frozen<VEC>(op, batch_of(shape), grad_y, grad_x, stream);
  };
  dispatch_norm<T>(shape, {grad_y, x, grad_x}, {mean, rstd, weight, sum_g, sum_gx}, run);
}

template <typename T>
void launch_instance_norm_frozen(const NormShape& shape, const T* x, const wide_t<T>* mean,
                                 const wide_t<T>* scale, const wide_t<T>* shift, T* y,
                                 cudaStream_t stream) {
  const auto run = [&]<bool LAST, int VEC>() {
    const Normalization<T, LAST, VEC> op{PlaneOf<LAST, VEC>(shape), mean, scale, shift};
    launch_frozen<VEC>(op, batch_of(shape), x, y, stream);
  };
  dispatch_norm<T>(shape, {x, y}, {mean, scale, shift}, run);
}

}  // namespace linscope
