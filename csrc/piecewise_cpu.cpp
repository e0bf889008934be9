#include <algorithm>

#include "cpu.h"
#include "piecewise_ops.h"

namespace {

using namespace linscope;

constexpr int64_t kTile = 2048;

template <int bits>
void pack(uint8_t* pieces, int64_t n, uint8_t* out) {
  constexpr int per_byte = 8 / bits;
  const int64_t bytes = (n + per_byte - 1) / per_byte;
  std::fill(pieces + n, pieces + bytes * per_byte, uint8_t{0});
  for (int64_t b = 0; b < bytes; ++b) {
    unsigned byte = 0;
    for (int k = 0; k < per_byte; ++k)
      byte |= static_cast<unsigned>(pieces[b * per_byte + k]) << (k * bits);
    out[b] = static_cast<uint8_t>(byte);
  }
}

template <int bits>
void unpack(const uint8_t* in, int64_t n, uint8_t* pieces) {
  constexpr int per_byte = 8 / bits;
  for (int64_t b = 0; b < (n + per_byte - 1) / per_byte; ++b) {
    for (int k = 0; k < per_byte; ++k)
      pieces[b * per_byte + k] = in[b] >> (k * bits) & ((1 << bits) - 1);
  }
}

template <typename Unit, typename T>
void apply(const Unit& unit, const uint8_t* pieces, int64_t n, const T* x, T* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(unit.apply(pieces[i], widen(x[i])));
}

// Calls f(reference, first element, count, first byte) for tiles that stay in the first cache.
template <int bits, typename F>
void for_tiles(const PackedShape& shape, const F& f) {
  const int64_t tiles = (shape.sample_size + kTile - 1) / kTile;
  const int64_t each = std::min(kTile, shape.sample_size) * (shape.samples / shape.references);
  parallel_for(shape.references * tiles, each, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t r = t / tiles, i = t % tiles * kTile;
      f(r, i, std::min(kTile, shape.sample_size - i), r * shape.row_bytes + i * bits / 8);
    }
  });
}

struct Cpu {
  using Guard = CpuGuard;

  template <typename Unit, typename T>
  static void piecewise_scope(const Unit& unit, const PackedShape& shape, const T* x, T* y,
                              uint8_t* decision, const Guard&) {
    for_tiles<Unit::bits>(shape, [&](int64_t r, int64_t i, int64_t n, int64_t byte) {
      uint8_t pieces[kTile];
      const T* x0 = x + r * shape.sample_size + i;
      for (int64_t k = 0; k < n; ++k) pieces[k] = static_cast<uint8_t>(unit.piece(widen(x0[k])));
      for (int64_t s = r; s < shape.samples; s += shape.references) {
        apply(unit, pieces, n, x + s * shape.sample_size + i, y + s * shape.sample_size + i);
      }
      pack<Unit::bits>(pieces, n, decision + byte);
    });
  }

  template <typename Unit, typename T>
  static void piecewise_frozen(const Unit& unit, const PackedShape& shape, const T* x,
                               const uint8_t* decision, T* y, const Guard&) {
    for_tiles<Unit::bits>(shape, [&](int64_t r, int64_t i, int64_t n, int64_t byte) {
      uint8_t pieces[kTile];
      unpack<Unit::bits>(decision + byte, n, pieces);
      for (int64_t s = r; s < shape.samples; s += shape.references) {
        apply(unit, pieces, n, x + s * shape.sample_size + i, y + s * shape.sample_size + i);
      }
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(linscope, CPU, m) { PiecewiseOps<Cpu>::implement(m); }
