// Scopes of piecewise-linear units (ReLU, LeakyReLU, clamp). Elements of a sample are taken in the
// order of memory; the decision holds `bits` per element, lowest bits first, and each reference's
// row starts on a byte.
#pragma once

#include <type_traits>

#include "launch.h"
#include "scopes.h"

namespace linscope {

// How VEC elements of a thread lie in the packed row: either several lanes share a byte, or a
// thread has whole bytes.
template <int bits, int VEC>
struct Packing {
  static constexpr int lanes = 8 / bits > VEC ? 8 / bits / VEC : 1;
  static constexpr int bytes = VEC * bits > 8 ? VEC * bits / 8 : 1;
  using byte_t = std::conditional_t<bytes == 2, uint16_t, uint8_t>;
  static_assert(bytes <= 2, "a thread holds at most two bytes of decisions");
};

// One thread: VEC neighbours of one reference, then the same place in each of its probes, so that
// x0 is read once.
template <typename Unit, typename T, int VEC>
__global__ void __launch_bounds__(kBlock, kResident)
    piecewise_scope_kernel(Unit unit, PackedShape shape, const T* __restrict__ x, T* __restrict__ y,
                           uint8_t* __restrict__ decision) {
  using P = Packing<Unit::bits, VEC>;
  const int64_t row_items = shape.row_bytes * P::lanes / P::bytes;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const unsigned lane = threadIdx.x % 32;
  for (int64_t r = blockIdx.y; r < shape.references; r += gridDim.y) {
    // A warp goes on while any of its lanes has work: all of them meet in the shuffles.
    const int64_t start = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x - lane;
    for (int64_t first = start; first < row_items; first += step) {
      const int64_t item = first + lane, i = item * VEC;
      unsigned pieces = 0;
      if (i < shape.sample_size) {
        Pack<T, VEC> pack = load<VEC>(x + r * shape.sample_size + i);
#pragma unroll
        for (int k = 0; k < VEC; ++k) {
          const auto value = widen(pack.v[k]);
          const unsigned piece = unit.piece(value);
          pieces |= piece << (k * Unit::bits);
          narrow(unit.apply(piece, value), pack.v[k]);
        }
        store(y + r * shape.sample_size + i, pack);
        for (int64_t s = r + shape.references; s < shape.samples; s += shape.references) {
          pack = load<VEC>(x + s * shape.sample_size + i);
#pragma unroll
          for (int k = 0; k < VEC; ++k) {
            const unsigned piece = pieces >> (k * Unit::bits) & ((1u << Unit::bits) - 1);
            narrow(unit.apply(piece, widen(pack.v[k])), pack.v[k]);
          }
          store(y + s * shape.sample_size + i, pack);
        }
      }
#pragma unroll
      for (int d = 1; d < P::lanes; d *= 2) {
        pieces |= __shfl_down_sync(0xffffffffu, pieces, d) << (d * VEC * Unit::bits);
      }
      if (item < row_items && lane % P::lanes == 0) {
        using byte_t = typename P::byte_t;
        *reinterpret_cast<byte_t*>(decision + r * shape.row_bytes + item / P::lanes * P::bytes) =
            static_cast<byte_t>(pieces);
      }
    }
  }
}

// y may be x: an element is read and written by one thread.
template <typename Unit, typename T, int VEC>
__global__ void __launch_bounds__(kBlock, kResident)
    piecewise_frozen_kernel(Unit unit, PackedShape shape, const T* x,
                            const uint8_t* __restrict__ decision, T* y) {
  using P = Packing<Unit::bits, VEC>;
  const int64_t items = (shape.sample_size + VEC - 1) / VEC;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t r = blockIdx.y; r < shape.references; r += gridDim.y) {
    for (int64_t item = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; item < items;
         item += step) {
      using byte_t = typename P::byte_t;
      unsigned pieces = *reinterpret_cast<const byte_t*>(decision + r * shape.row_bytes +
                                                         item / P::lanes * P::bytes);
      pieces >>= item % P::lanes * (VEC * Unit::bits);
      for (int64_t s = r; s < shape.samples; s += shape.references) {
        Pack<T, VEC> pack = load<VEC>(x + s * shape.sample_size + item * VEC);
#pragma unroll
        for (int k = 0; k < VEC; ++k) {
          const unsigned piece = pieces >> (k * Unit::bits) & ((1u << Unit::bits) - 1);
          narrow(unit.apply(piece, widen(pack.v[k])), pack.v[k]);
        }
        store(y + s * shape.sample_size + item * VEC, pack);
      }
    }
  }
}

inline dim3 piecewise_grid(const PackedShape& shape, int vec) {
  const int64_t items = (shape.sample_size + vec - 1) / vec;
  return dim3(blocks_for(items), static_cast<unsigned>(std::min<int64_t>(shape.references, 65535)));
}

template <typename Unit, typename T>
void launch_piecewise_scope(Unit unit, const PackedShape& shape, const T* x, T* y,
                            uint8_t* decision, cudaStream_t stream) {
  constexpr int vec = widest<T>();
  if (shape.sample_size % vec == 0 && aligned(x) && aligned(y) && aligned(decision)) {
    launch(piecewise_scope_kernel<Unit, T, vec>, piecewise_grid(shape, vec), kBlock, 0, stream,
           unit, shape, x, y, decision);
  } else {
    launch(piecewise_scope_kernel<Unit, T, 1>, piecewise_grid(shape, 1), kBlock, 0, stream, unit,
           shape, x, y, decision);
  }
}

template <typename Unit, typename T>
void launch_piecewise_frozen(Unit unit, const PackedShape& shape, const T* x,
                             const uint8_t* decision, T* y, cudaStream_t stream) {
  constexpr int vec = widest<T>();
  if (shape.sample_size % vec == 0 && aligned(x) && aligned(y) && aligned(decision)) {
    launch(piecewise_frozen_kernel<Unit, T, vec>, piecewise_grid(shape, vec), kBlock, 0, stream,
           unit, shape, x, decision, y);
  } else {
    launch(piecewise_frozen_kernel<Unit, T, 1>, piecewise_grid(shape, 1), kBlock, 0, stream, unit,
           shape, x, decision, y);
  }
}

}  // namespace linscope
