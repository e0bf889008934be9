#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <type_traits>

#include "cpu.h"
#include "piecewise_ops.h"

namespace {

using namespace linscope;

// About a page of each sample at a time: with more, large tensors go through slower.
constexpr int64_t kTile = 1024;

// A byte's pieces, one per byte of a word: 8 of 1 bit or 4 of 2 bits.
template <int bits>
struct Word {
  static_assert(std::endian::native == std::endian::little, "the first piece is the lowest byte");
  using type = std::conditional_t<bits == 1, uint64_t, uint32_t>;
  static constexpr int pieces = 8 / bits;

  // One multiplication moves piece k from byte k to bit k * bits of the highest byte; no two terms
  // meet.
  static constexpr type gather = bits == 1 ? 0x0102040810204080 : 0x01041040;

  static constexpr std::array<type, 256> spread = [] {
    std::array<type, 256> table{};
    for (unsigned byte = 0; byte < 256; ++byte) {
      for (int k = 0; k < pieces; ++k) {
        table[byte] |= static_cast<type>(byte >> (k * bits) & ((1u << bits) - 1)) << (8 * k);
      }
    }
    return table;
  }();
};

template <int bits>
void pack(uint8_t* pieces, int64_t n, uint8_t* out) {
  using W = Word<bits>;
  const int64_t bytes = (n + W::pieces - 1) / W::pieces;
  std::fill(pieces + n, pieces + bytes * W::pieces, uint8_t{0});
  for (int64_t b = 0; b < bytes; ++b) {
    typename W::type word;
    std::memcpy(&word, pieces + b * W::pieces, sizeof(word));
    out[b] = static_cast<uint8_t>(word * W::gather >> (8 * sizeof(word) - 8));
  }
}

template <int bits>
void unpack(const uint8_t* in, int64_t n, uint8_t* pieces) {
  using W = Word<bits>;
  for (int64_t b = 0; b < (n + W::pieces - 1) / W::pieces; ++b) {
    std::memcpy(pieces + b * W::pieces, &W::spread[in[b]], sizeof(typename W::type));
  }
}

// The unit comes by value and the pointers are restricted so that these loops become vector code.
template <typename Unit, typename T>
void decide(Unit unit, const T* __restrict x, int64_t n, uint8_t* __restrict pieces) {
  for (int64_t i = 0; i < n; ++i) pieces[i] = static_cast<uint8_t>(unit.piece(widen(x[i])));
}

template <typename Unit, typename T>
void apply(Unit unit, const uint8_t* __restrict pieces, int64_t n, const T* __restrict x,
           T* __restrict y) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(unit.apply(pieces[i], widen(x[i])));
}

template <typename Unit, typename T>
void apply_in_place(Unit unit, const uint8_t* __restrict pieces, int64_t n, T* __restrict y) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(unit.apply(pieces[i], widen(y[i])));
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
      decide(unit, x + r * shape.sample_size + i, n, pieces);
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
        const int64_t at = s * shape.sample_size + i;
        if (x == y) {
          apply_in_place(unit, pieces, n, y + at);
        } else {
          apply(unit, pieces, n, x + at, y + at);
        }
      }
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(linscope, CPU, m) { PiecewiseOps<Cpu>::implement(m); }
