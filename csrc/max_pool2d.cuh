// Max pooling scope: each output's winner is decided on the reference and read in every probe. A
// thread takes an output (or, transposed, an input pixel), or VEC channels of a channels_last one,
// in the order of memory. Usual windows are known to the compiler, which then has all loads of a
// window under way at a time.
#pragma once

#include "pointwise.cuh"

namespace linscope {

// A window of SIZE x SIZE pixels every STRIDE pixels, without dilation; of size 0 for any other.
template <int SIZE, int STRIDE>
struct Usual {
  static constexpr bool known = SIZE > 0;
  static constexpr int size = SIZE, stride = STRIDE;
  // Windows along one dimension that a pixel lies in.
  static constexpr int met = (SIZE + STRIDE - 1) / STRIDE;

  static bool is(const Window& w) {
    return w.kernel_h == SIZE && w.kernel_w == SIZE && w.stride_h == STRIDE &&
           w.stride_w == STRIDE && w.dilation_h == 1 && w.dilation_w == 1;
  }

  // The same window, with what the compiler may know.
  static __device__ __forceinline__ Window of(Window w) {
    if constexpr (known) {
      w.kernel_h = w.kernel_w = SIZE;
      w.stride_h = w.stride_w = STRIDE;
      w.dilation_h = w.dilation_w = 1;
    }
    return w;
  }
};

// All loads of a window are under way at a time, in registers.
template <typename W>
constexpr unsigned kResidentWithWindow = W::size > 2 ? 2 : 3;

// A pack's channel, row and column, by its number within a sample.
struct PackIndex {
  Divisor inner, middle;

  PackIndex(const Planes& planes, int vec)
      : inner((planes.channels_last ? planes.channels : planes.width) / vec),
        middle(planes.channels_last ? planes.width : planes.height) {}

  template <bool LAST, int VEC>
  __device__ __forceinline__ PixelIndex of(const Place& place) const {
    const auto [outer, in] = inner.split(place.at);
    const auto [top, between] = middle.split(outer);
    const auto first = static_cast<int>(in) * VEC, second = static_cast<int>(between),
               third = static_cast<int>(top);
    if (LAST) return {place.row, first, third, second};
    return {place.row, third, second, first};
  }
};

// Cells of a usual window that a thread takes side by side: in a contiguous image those whose
// pixels are a pack.
template <typename W, bool LAST, int VEC>
constexpr int cells_of = !LAST && VEC > W::stride ? VEC / W::stride : 1;

// Neighbours in the order of memory that a thread of the transposed pool takes: cells, or channels.
template <typename W, bool LAST, int VEC>
constexpr int taken_of = W::known && !LAST ? cells_of<W, LAST, VEC> : VEC;

struct PoolWork {
  PoolShape shape;
  Tiling tiling;  // of the references' outputs, or, transposed, of pixels or cells
  PackIndex index;
  Divisor slices;  // of the samples: a block takes every such one
};

// Calls f(tap's number, its pack of a plane) for each tap of an output's window that falls on the
// image. All of a usual window is under way before the first is looked at.
template <typename W, int VEC, typename T, typename F>
__device__ __forceinline__ void for_taps(const PoolShape& shape, const PixelIndex& at,
                                         const T* plane, const F& f) {
  const Window w = W::of(shape.window);
  const int top = at.row * w.stride_h - w.padding_h, left = at.column * w.stride_w - w.padding_w;
  if constexpr (W::known) {
    Loaded<T, VEC> packs[W::size * W::size];
    bool inside[W::size * W::size];
#pragma unroll
    for (int tap = 0; tap < W::size * W::size; ++tap) {
      const int row = top + tap / W::size, column = left + tap % W::size;
      inside[tap] = row >= 0 && row < shape.in.height && column >= 0 && column < shape.in.width;
      if (inside[tap]) packs[tap] = load<VEC>(plane + shape.in.pixel(row, column));
    }
#pragma unroll
    for (int tap = 0; tap < W::size * W::size; ++tap) {
      if (inside[tap]) f(tap, packs[tap]);
    }
  } else {
    const Window::Taps rows = w.rows(at.row, shape.in), columns = w.columns(at.column, shape.in);
    for (int i = rows.begin; i < rows.end; ++i) {
      for (int j = columns.begin; j < columns.end; ++j) {
        const int64_t pixel = shape.in.pixel(top + i * w.dilation_h, left + j * w.dilation_w);
        f(i * w.kernel_w + j, load<VEC>(plane + pixel));
      }
    }
  }
}

// The winners' values in a sample's plane, 0 for the number of no tap.
template <typename W, int VEC, typename T, typename code_t>
__device__ __forceinline__ Pack<T, VEC> winners(const PoolShape& shape, const PixelIndex& at,
                                                const T* plane, const Pack<code_t, VEC>& codes) {
  Pack<T, VEC> y;
#pragma unroll
  for (int k = 0; k < VEC; ++k) narrow(wide_t<T>(0), y.v[k]);
  if constexpr (VEC > 1) {
    for_taps<W, VEC>(shape, at, plane, [&](int tap, const Pack<T, VEC>& pack) {
#pragma unroll
      for (int k = 0; k < VEC; ++k)
        y.v[k] = static_cast<int>(codes.v[k]) == tap ? pack.v[k] : y.v[k];
    });
  } else {
    const Window w = W::of(shape.window);
    const int64_t source = w.source(codes.v[0], shape.in, at.row, at.column);
    if (source >= 0) y.v[0] = plane[source];
  }
  return y;
}

template <typename W, bool LAST, int VEC, typename T, typename code_t>
__global__ void __launch_bounds__(kBlock, kResidentWithWindow<W>)
    max_pool2d_scope_kernel(PoolWork work, const T* __restrict__ x, T* __restrict__ y,
                            code_t* __restrict__ decision) {
  const PoolShape& shape = work.shape;
  const auto [tile, slice] = work.slices.split(blockIdx.x);
  const Place place = work.tiling.place<1>(tile, 0);
  if (!place.inside) return;
  const PixelIndex at = work.index.of<LAST, VEC>(place);
  Pack<code_t, VEC> codes{};
  wide_t<T> best[VEC];
  bool found = false;
  const T* plane = x + shape.in.base(at.sample, at.channel);
  for_taps<W, VEC>(shape, at, plane, [&](int tap, const Pack<T, VEC>& pack) {
#pragma unroll
    for (int k = 0; k < VEC; ++k) {
      const auto value = widen(pack.v[k]);
      const bool wins = !found || Window::wins(value, best[k]);
      best[k] = wins ? value : best[k];
      codes.v[k] = wins ? static_cast<code_t>(tap) : codes.v[k];
    }
    found = true;
  });
  Pack<T, VEC> y0;
#pragma unroll
  for (int k = 0; k < VEC; ++k) narrow(best[k], y0.v[k]);
  const int64_t target = shape.out.pixel(at.row, at.column);
  if (slice == 0) {
    store(decision + shape.out.base(at.sample, at.channel) + target, codes);
    store(y + shape.out.base(at.sample, at.channel) + target, y0);
  }
  for (int64_t s = at.sample + (1 + slice) * shape.references; s < shape.samples;
       s += work.slices.divisor() * shape.references) {
    const auto probe = winners<W, VEC>(shape, at, x + shape.in.base(s, at.channel), codes);
    store(y + shape.out.base(s, at.channel) + target, probe);
  }
}

template <typename W, bool LAST, int VEC, typename T, typename code_t>
__global__ void __launch_bounds__(kBlock, kResidentWithWindow<W>)
    max_pool2d_frozen_kernel(PoolWork work, const T* __restrict__ x,
                             const code_t* __restrict__ decision, T* __restrict__ y) {
  const PoolShape& shape = work.shape;
  const auto [tile, slice] = work.slices.split(blockIdx.x);
  const Place place = work.tiling.place<1>(tile, 0);
  if (!place.inside) return;
  const PixelIndex at = work.index.of<LAST, VEC>(place);
  const int64_t target = shape.out.pixel(at.row, at.column);
  const Pack<code_t, VEC> codes =
      load<VEC>(decision + shape.out.base(at.sample, at.channel) + target);
  for (int64_t s = at.sample + slice * shape.references; s < shape.samples;
       s += work.slices.divisor() * shape.references) {
    const auto found = winners<W, VEC>(shape, at, x + shape.in.base(s, at.channel), codes);
    store(y + shape.out.base(s, at.channel) + target, found);
  }
}

// x at any window: what a pixel has won is looked for anew in every sample.
template <typename W, bool LAST, int VEC, typename T, typename code_t>
__device__ __forceinline__ void gather_pixel(const PoolWork& work, const PixelIndex& at,
                                             int64_t first, const T* u, const code_t* decision,
                                             T* x) {
  const PoolShape& shape = work.shape;
  const code_t* codes = decision + shape.out.base(at.sample, at.channel);
  for (int64_t s = first; s < shape.samples; s += work.slices.divisor() * shape.references) {
    const auto wide = [](T value) { return widen(value); };
    narrow(shape.window.gather(u + shape.out.base(s, at.channel), codes, shape.out, at.row,
                               at.column, wide),
           x[shape.in.base(s, at.channel) + shape.in.pixel(at.row, at.column)]);
  }
}

// x at cells of a usual window: a cell is the pixels between the corners of neighbouring windows.
// All of them lie in the windows of the same few outputs, each at a tap that the compiler knows. A
// thread takes VEC channels of a channels_last cell, or several cells side by side, whose rows it
// stores whole where VEC says so.
template <typename W, bool LAST, int VEC, typename T, typename code_t>
__device__ __forceinline__ void gather_cells(const PoolWork& work, const PixelIndex& cell,
                                             int64_t first, const T* u, const code_t* decision,
                                             T* x) {
  constexpr int channels = LAST ? VEC : 1, cells = cells_of<W, LAST, VEC>;
  constexpr int down = W::met, across = W::met + cells - 1, outputs = down * across;
  const PoolShape& shape = work.shape;
  int64_t places[outputs];
  bool inside[outputs];
  Loaded<code_t, channels> codes[outputs];
#pragma unroll
  for (int o = 0; o < outputs; ++o) {
    const int row = cell.row - o / across, column = cell.column + cells - 1 - o % across;
    inside[o] = row >= 0 && row < shape.out.height && column >= 0 && column < shape.out.width;
    places[o] = shape.out.pixel(row, column);
    if (inside[o]) {
      codes[o] = load<channels>(decision + shape.out.base(cell.sample, cell.channel) + places[o]);
    }
  }
  const int top = cell.row * W::stride - shape.window.padding_h,
            left = cell.column * W::stride - shape.window.padding_w;
  for (int64_t s = first; s < shape.samples; s += work.slices.divisor() * shape.references) {
    const int64_t base = shape.in.base(s, cell.channel);
    Loaded<T, channels> given[outputs];
#pragma unroll
    for (int o = 0; o < outputs; ++o) {
      if (inside[o]) given[o] = load<channels>(u + shape.out.base(s, cell.channel) + places[o]);
    }
#pragma unroll
    for (int i = 0; i < W::stride; ++i) {
      if (top + i < 0 || top + i >= shape.in.height) continue;
      Pack<T, cells * W::stride> line;
#pragma unroll
      for (int j = 0; j < cells * W::stride; ++j) {
        wide_t<T> sums[channels] = {};
#pragma unroll
        for (int o = 0; o < outputs; ++o) {
          const int tap_row = i + o / across * W::stride,
                    tap_column = j - (cells - 1 - o % across) * W::stride;
          if (tap_row >= W::size || tap_column < 0 || tap_column >= W::size) continue;
          const Pack<code_t, channels> winners = codes[o];
          const Pack<T, channels> values = given[o];
#pragma unroll
          for (int k = 0; k < channels; ++k) {
            const bool won = inside[o] && winners.v[k] == tap_row * W::size + tap_column;
            sums[k] += won ? widen(values.v[k]) : wide_t<T>(0);
          }
        }
        if constexpr (!LAST && VEC > 1) {
          narrow(sums[0], line.v[j]);
        } else if (left + j >= 0 && left + j < shape.in.width) {
          Pack<T, channels> pack;
#pragma unroll
          for (int k = 0; k < channels; ++k) narrow(sums[k], pack.v[k]);
          store(x + base + shape.in.pixel(top + i, left + j), pack);
        }
      }
      if constexpr (!LAST && VEC > 1) store(x + base + shape.in.pixel(top + i, left), line);
    }
  }
}

template <typename W, bool LAST, int VEC, typename T, typename code_t>
__global__ void __launch_bounds__(kBlock, kResidentWithWindow<W>)
    max_pool2d_frozen_transpose_kernel(PoolWork work, const T* __restrict__ u,
                                       const code_t* __restrict__ decision, T* __restrict__ x) {
  const auto [tile, slice] = work.slices.split(blockIdx.x);
  const Place place = work.tiling.place<1>(tile, 0);
  if (!place.inside) return;
  const PixelIndex at = work.index.of<LAST, taken_of<W, LAST, VEC>>(place);
  const int64_t first = at.sample + slice * work.shape.references;
  if constexpr (W::known) {
    gather_cells<W, LAST, VEC>(work, at, first, u, decision, x);
  } else {
    gather_pixel<W, LAST, VEC>(work, at, first, u, decision, x);
  }
}

// Calls f.operator()<W, LAST, VEC>(work, blocks) for a usual window, or for any, with the widest
// packs of channels. Threads take outputs, or, TRANSPOSED, cells of a usual window and pixels of
// any.
template <bool TRANSPOSED, typename T, typename code_t, typename F>
void dispatch_pool(const PoolShape& shape, const T* x, const T* y, const code_t* decision,
                   const F& f) {
  const auto with = [&]<typename W, bool LAST, int VEC>() {
    constexpr int step = TRANSPOSED ? taken_of<W, LAST, VEC> : VEC;
    Planes taken = TRANSPOSED ? shape.in : shape.out;
    if (TRANSPOSED && W::known) {
      taken.height = (shape.in.height + shape.window.padding_h + W::stride - 1) / W::stride;
      taken.width = (shape.in.width + shape.window.padding_w + W::stride - 1) / W::stride;
    }
    const auto tiling = Tiling::of(shape.references, taken.channels * taken.area() / step, 1);
    const unsigned slices = slices_of(shape.samples / shape.references, tiling.blocks());
    f.template operator()<W, LAST, VEC>(
        PoolWork{shape, tiling, PackIndex(taken, step), Divisor(slices)}, tiling.blocks() * slices);
  };
  const auto usual = [&]<typename W>() {
    if (shape.in.channels_last) {
      return dispatch_width<T>(
          [&]<int VEC>() {
            return shape.in.channels % VEC == 0 && aligned(VEC * sizeof(T), {x, y}) &&
                   aligned(VEC * sizeof(code_t), {decision});
          },
          [&]<int VEC>() { with.template operator()<W, true, VEC>(); });
    }
    if constexpr (TRANSPOSED) {  // rows of an image without padding begin with a cell
      dispatch_width<T>(
          [&]<int VEC>() {
            return VEC % W::stride == 0 && shape.window.padding_w == 0 &&
                   shape.in.width % VEC == 0 && aligned(VEC * sizeof(T), {y});
          },
          [&]<int VEC>() { with.template operator()<W, false, VEC>(); });
    } else {
      with.template operator()<W, false, 1>();
    }
  };
  if constexpr (sizeof(code_t) == 1) {
    if (Usual<2, 2>::is(shape.window)) return usual.template operator()<Usual<2, 2>>();
    if (Usual<3, 2>::is(shape.window)) return usual.template operator()<Usual<3, 2>>();
  }
  if (shape.in.channels_last) return with.template operator()<Usual<0, 1>, true, 1>();
  with.template operator()<Usual<0, 1>, false, 1>();
}

template <typename T, typename code_t>
void launch_max_pool2d_scope(const PoolShape& shape, const T* x, T* y, code_t* decision,
                             cudaStream_t stream) {
  dispatch_pool<false>(shape, x, y, decision,
                       [&]<typename W, bool LAST, int VEC>(const PoolWork& work, unsigned blocks) {
                         launch(max_pool2d_scope_kernel<W, LAST, VEC, T, code_t>, blocks, kBlock, 0,
                                stream, work, x, y, decision);
                       });
}

template <typename T, typename code_t>
void launch_max_pool2d_frozen(const PoolShape& shape, const T* x, const code_t* decision, T* y,
                              cudaStream_t stream) {
  dispatch_pool<false>(shape, x, y, decision,
                       [&]<typename W, bool LAST, int VEC>(const PoolWork& work, unsigned blocks) {
                         launch(max_pool2d_frozen_kernel<W, LAST, VEC, T, code_t>, blocks, kBlock,
                                0, stream, work, x, decision, y);
                       });
}

template <typename T, typename code_t>
void launch_max_pool2d_frozen_transpose(const PoolShape& shape, const T* u, const code_t* decision,
                                        T* x, cudaStream_t stream) {
  dispatch_pool<true>(shape, u, x, decision,
                      [&]<typename W, bool LAST, int VEC>(const PoolWork& work, unsigned blocks) {
                        launch(max_pool2d_frozen_transpose_kernel<W, LAST, VEC, T, code_t>, blocks,
                               kBlock, 0, stream, work, u, decision, x);
                      });
}

}  // namespace linscope
