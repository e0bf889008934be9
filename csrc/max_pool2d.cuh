// Max pooling scope: each output's winner is decided on the reference and read in every probe. One
// thread per output (or, transposed, per input pixel), in the order of memory, so that neighbours
// read neighbours in either format.
#pragma once

#include "launch.h"
#include "scopes.h"

namespace linscope {

template <typename T>
struct Widen {
  __device__ __forceinline__ wide_t<T> operator()(T x) const { return widen(x); }
};

template <typename T, typename code_t, typename index_t>
__global__ void __launch_bounds__(kBlock, kResident)
    max_pool2d_scope_kernel(PoolShape shape, index_t items, const T* __restrict__ x,
                            T* __restrict__ y, code_t* __restrict__ decision) {
  const index_t step = static_cast<index_t>(gridDim.x) * blockDim.x;
  for (index_t item = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; item < items;
       item += step) {
    const PixelIndex at = pixel_at<index_t>(shape.out, item);
    const int winner = shape.window.decide(x + shape.in.base(at.sample, at.channel), shape.in,
                                           at.row, at.column, Widen<T>());
    decision[item] = static_cast<code_t>(winner);
    const int64_t source = shape.window.place(winner, shape.in, at.row, at.column);
    const int64_t target = shape.out.pixel(at.row, at.column);
    for (int64_t s = at.sample; s < shape.samples; s += shape.references) {
      y[shape.out.base(s, at.channel) + target] = x[shape.in.base(s, at.channel) + source];
    }
  }
}

template <typename T, typename code_t, typename index_t>
__global__ void __launch_bounds__(kBlock, kResident)
    max_pool2d_frozen_kernel(PoolShape shape, index_t items, const T* __restrict__ x,
                             const code_t* __restrict__ decision, T* __restrict__ y) {
  const index_t step = static_cast<index_t>(gridDim.x) * blockDim.x;
  for (index_t item = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; item < items;
       item += step) {
    const PixelIndex at = pixel_at<index_t>(shape.out, item);
    const int64_t source = shape.window.source(decision[item], shape.in, at.row, at.column);
    const int64_t target = shape.out.pixel(at.row, at.column);
    for (int64_t s = at.sample; s < shape.samples; s += shape.references) {
      T value;
      narrow(wide_t<T>(0), value);
      if (source >= 0) value = x[shape.in.base(s, at.channel) + source];
      y[shape.out.base(s, at.channel) + target] = value;
    }
  }
}

template <typename T, typename code_t, typename index_t>
__global__ void __launch_bounds__(kBlock, kResident)
    max_pool2d_frozen_transpose_kernel(PoolShape shape, index_t items, const T* __restrict__ u,
                                       const code_t* __restrict__ decision, T* __restrict__ x) {
  const index_t step = static_cast<index_t>(gridDim.x) * blockDim.x;
  for (index_t item = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; item < items;
       item += step) {
    const PixelIndex at = pixel_at<index_t>(shape.in, item);
    const code_t* plane = decision + shape.out.base(at.sample, at.channel);
    const int64_t target = shape.in.pixel(at.row, at.column);
    for (int64_t s = at.sample; s < shape.samples; s += shape.references) {
      const auto sum = shape.window.gather(u + shape.out.base(s, at.channel), plane, shape.out,
                                           at.row, at.column, Widen<T>());
      narrow(sum, x[shape.in.base(s, at.channel) + target]);
    }
  }
}

// The grid's step is added to an index, so 32 bits serve up to 2^30 items.
template <typename F>
void launch_pool(int64_t items, const F& f) {
  if (items < (int64_t{1} << 30)) {
    f.template operator()<int32_t>(blocks_for(items), static_cast<int32_t>(items));
  } else {
    f.template operator()<int64_t>(blocks_for(items), items);
  }
}

template <typename T, typename code_t>
void launch_max_pool2d_scope(const PoolShape& shape, const T* x, T* y, code_t* decision,
                             cudaStream_t stream) {
  launch_pool(shape.references * shape.out.channels * shape.out.area(),
              [&]<typename index_t>(unsigned blocks, index_t items) {
                launch(max_pool2d_scope_kernel<T, code_t, index_t>, blocks, kBlock, 0, stream,
                       shape, items, x, y, decision);
              });
}

template <typename T, typename code_t>
void launch_max_pool2d_frozen(const PoolShape& shape, const T* x, const code_t* decision, T* y,
                              cudaStream_t stream) {
  launch_pool(shape.references * shape.out.channels * shape.out.area(),
              [&]<typename index_t>(unsigned blocks, index_t items) {
                launch(max_pool2d_frozen_kernel<T, code_t, index_t>, blocks, kBlock, 0, stream,
                       shape, items, x, decision, y);
              });
}

template <typename T, typename code_t>
void launch_max_pool2d_frozen_transpose(const PoolShape& shape, const T* u, const code_t* decision,
                                        T* x, cudaStream_t stream) {
  launch_pool(shape.references * shape.in.channels * shape.in.area(),
              [&]<typename index_t>(unsigned blocks, index_t items) {
                launch(max_pool2d_frozen_transpose_kernel<T, code_t, index_t>, blocks, kBlock, 0,
                       stream, shape, items, u, decision, x);
              });
}

}  // namespace linscope
