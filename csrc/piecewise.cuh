// Scopes of piecewise-linear units (ReLU, LeakyReLU, clamp). Elements of a sample are taken in the
// order of memory; the decision holds `bits` per element, lowest bits first, and each reference's
// row starts on a byte.
#pragma once

#include <type_traits>

#include "pointwise.cuh"

namespace linscope {

// How the pieces of VEC elements lie in the packed row: either several lanes share a byte, or a
// thread has whole bytes.
template <int bits, int VEC>
struct Packing {
  static constexpr int lanes = 8 / bits > VEC ? 8 / bits / VEC : 1;
  static constexpr int bytes = VEC * bits > 8 ? VEC * bits / 8 : 1;
  using byte_t = std::conditional_t<bytes == 2, uint16_t, uint8_t>;
  static_assert(bytes <= 2, "a thread holds at most two bytes of decisions");
};

template <typename Unit, typename T, int VEC, typename Bytes>
struct Piecewise {
  using P = Packing<Unit::bits, VEC>;
  using Decision = unsigned;  // the pieces of a pack
  static constexpr int packs = kPacks;

  Unit unit;
  Bytes* kept;
  int64_t row_bytes;

  __device__ __forceinline__ Decision decide(const Pack<T, VEC>& x0, Pack<T, VEC>& y0) const {
    Decision pieces = 0;
#pragma unroll
    for (int k = 0; k < VEC; ++k) {
      const auto value = widen(x0.v[k]);
      const unsigned piece = unit.piece(value);
      pieces |= piece << (k * Unit::bits);
      narrow(unit.apply(piece, value), y0.v[k]);
    }
    return pieces;
  }

  __device__ __forceinline__ void keep(const Place& place, Decision pieces) const {
    if (!place.inside) pieces = 0;
#pragma unroll
    for (int d = 1; d < P::lanes; d *= 2) {
      pieces |= __shfl_down_sync(0xffffffffu, pieces, d) << (d * VEC * Unit::bits);
    }
    if (place.inside && threadIdx.x % P::lanes == 0) {
      using byte_t = typename P::byte_t;
      *reinterpret_cast<byte_t*>(kept + place.row * row_bytes + place.at * Unit::bits / 8) =
          static_cast<byte_t>(pieces);
    }
  }

  __device__ __forceinline__ Decision decision(int64_t, int64_t row, int64_t at) const {
    using byte_t = typename P::byte_t;
    const unsigned bytes =
        *reinterpret_cast<const byte_t*>(kept + row * row_bytes + at * Unit::bits / 8);
    return bytes >> (at * Unit::bits % 8);
  }

  __device__ __forceinline__ Pack<T, VEC> apply(Decision pieces, Pack<T, VEC> pack) const {
#pragma unroll
    for (int k = 0; k < VEC; ++k) {
      const unsigned piece = pieces >> (k * Unit::bits) & ((1u << Unit::bits) - 1);
      narrow(unit.apply(piece, widen(pack.v[k])), pack.v[k]);
    }
    return pack;
  }
};

// Calls f.operator()<VEC>() with the widest packs that lie in samples and addresses.
template <typename Unit, typename T, typename F>
void dispatch_piecewise(const PackedShape& shape, const T* x, const T* y, const uint8_t* decision,
                        const F& f) {
  dispatch_width<T>(
      [&]<int VEC>() {
        return shape.sample_size % VEC == 0 && aligned(VEC * sizeof(T), {x, y}) &&
               aligned(Packing<Unit::bits, VEC>::bytes, {decision});
      },
      f);
}

template <typename Unit, typename T>
void launch_piecewise_scope(Unit unit, const PackedShape& shape, const T* x, T* y,
                            uint8_t* decision, cudaStream_t stream) {
  dispatch_piecewise<Unit>(shape, x, y, decision, [&]<int VEC>() {
    const Piecewise<Unit, T, VEC, uint8_t> op{unit, decision, shape.row_bytes};
    launch_scope<VEC>(op, shape, x, y, stream);
  });
}

template <typename Unit, typename T>
void launch_piecewise_frozen(Unit unit, const PackedShape& shape, const T* x,
                             const uint8_t* decision, T* y, cudaStream_t stream) {
  dispatch_piecewise<Unit>(shape, x, y, decision, [&]<int VEC>() {
    const Piecewise<Unit, T, VEC, const uint8_t> op{unit, decision, shape.row_bytes};
    launch_frozen<VEC>(op, shape, x, y, stream);
  });
}

}  // namespace linscope
