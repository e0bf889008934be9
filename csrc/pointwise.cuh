// The two skeletons of operators that treat every element by itself: a decision is taken of x0's
// element, and a probe's element meets the decision of its place. What the operator is stands in
// an `Op`: what it does with a pack of elements.
//
// A block takes tiles of a few samples, a thread several packs of them, whose loads are all under
// way before the first is used. Samples that share a reference follow one another in the grid, so
// that their decisions are read from memory once, and from the cache by the others.
#pragma once

#include "divisor.h"
#include "launch.h"
#include "scopes.h"

namespace linscope {

// Packs that a thread has under way; an Op with large decisions has fewer. Powers of two.
constexpr int kPacks = 4, kScopePacks = 2;

// A float64 takes two registers.
template <typename T>
constexpr unsigned kResidentOf = sizeof(T) == 8 ? 3 : kResident;

// Blocks that fill any device, with a few for every multiprocessor.
LAUNCH_LIMIT(kManyBlocks, 1024);

// Where the elements of a pack lie.
struct Place {
  bool inside;
  int64_t row;  // a sample, or a reference
  int64_t at;   // its first element within
};

// Rows of `packs` packs each, in tiles of width x height packs, of which width is a power of two.
// A warp stays within a row.
struct Tiling {
  int64_t rows, packs;
  int log_width, log_height;
  Divisor bands;  // of tiles, one above the other

  // Tiles of as many packs as a block's threads take, `each` by one.
  static Tiling of(int64_t rows, int64_t packs, int each) {
    int log_tile = 0, log_width = 5;
    while (1u << log_tile < kBlock * each) ++log_tile;
    while (log_width < log_tile && int64_t{1} << log_width < packs) ++log_width;
    const int log_height = log_tile - log_width;
    const int64_t height = int64_t{1} << log_height;
    return {rows, packs, log_width, log_height, Divisor((rows + height - 1) / height)};
  }

  unsigned blocks() const {
    const int64_t width = int64_t{1} << log_width;
    return static_cast<unsigned>(bands.divisor() * ((packs + width - 1) / width));
  }

  // The `number`-th pack of this thread in a tile.
  template <int VEC>
  __device__ __forceinline__ Place place(int64_t tile, int number) const {
    const unsigned i = threadIdx.x + number * kBlock, column = i & ((1u << log_width) - 1);
    const auto [across, band] = bands.split(tile);
    const int64_t row = (band << log_height) + (i >> log_width),
                  pack = (across << log_width) + column;
    return {row < rows && pack < packs, row, pack * VEC};
  }
};

// y = Op(x, decision) for samples of any reference. y may be x: an element is read and written by
// one thread.
template <typename Op, typename T, int VEC>
__global__ void __launch_bounds__(kBlock, kResidentOf<T>)
    frozen_kernel(Op op, Tiling tiling, Divisor references, const T* x, T* y) {
  const int64_t sample_size = tiling.packs * VEC;
  int64_t places[Op::packs];
  Loaded<T, VEC> packs[Op::packs];
  typename Op::Decision decisions[Op::packs];
#pragma unroll
  for (int k = 0; k < Op::packs; ++k) {
    const Place place = tiling.template place<VEC>(blockIdx.x, k);
    places[k] = place.inside ? place.row * sample_size + place.at : -1;
    if (!place.inside) continue;
    packs[k] = load<VEC>(x + places[k]);
    decisions[k] = op.decision(place.row, references.modulo(place.row), place.at);
  }
#pragma unroll
  for (int k = 0; k < Op::packs; ++k) {
    if (places[k] >= 0) store(y + places[k], op.apply(decisions[k], packs[k]));
  }
}

// y = [Op(x0), Op(probes, decision of x0)]. Of the probes a block takes every `slices`-th; all
// slices decide, the first one keeps the decision.
template <typename Op, typename T, int VEC>
__global__ void __launch_bounds__(kBlock, kTuring ? 3 : kResidentOf<T>)
    scope_kernel(Op op, Tiling tiling, int64_t samples, Divisor slices, const T* __restrict__ x,
                 T* __restrict__ y) {
  const int64_t sample_size = tiling.packs * VEC, stride = tiling.rows * sample_size;
  const auto [tile, slice] = slices.split(blockIdx.x);
  const int64_t end = samples / tiling.rows;  // of a reference and its probes
  int64_t next = 1 + slice;
  Place places[kScopePacks];
  Loaded<T, VEC> x0[kScopePacks], probes[kScopePacks];
  typename Op::Decision decisions[kScopePacks];
  const auto load_probes = [&] {
#pragma unroll
    for (int k = 0; k < kScopePacks; ++k) {
      if (!places[k].inside || next >= end) continue;
      probes[k] = load<VEC>(x + next * stride + places[k].row * sample_size + places[k].at);
    }
  };
#pragma unroll
  for (int k = 0; k < kScopePacks; ++k) {
    places[k] = tiling.template place<VEC>(tile, k);
    if (places[k].inside) x0[k] = load<VEC>(x + places[k].row * sample_size + places[k].at);
  }
  load_probes();
#pragma unroll
  for (int k = 0; k < kScopePacks; ++k) {
    const Place& place = places[k];
    Pack<T, VEC> y0;
    if (place.inside) decisions[k] = op.decide(x0[k], y0);
    if (slice != 0) continue;
    if (place.inside) store(y + place.row * sample_size + place.at, y0);
    op.keep(place, decisions[k]);  // all lanes of a warp at once
  }
  while (next < end) {
    Loaded<T, VEC> now[kScopePacks];
    const int64_t base = next * stride;
#pragma unroll
    for (int k = 0; k < kScopePacks; ++k) now[k] = probes[k];
    next += slices.divisor();
    load_probes();
#pragma unroll
    for (int k = 0; k < kScopePacks; ++k) {
      if (!places[k].inside) continue;
      store(y + base + places[k].row * sample_size + places[k].at, op.apply(decisions[k], now[k]));
    }
  }
}

// Slices of a reference's samples that let few blocks become many.
inline unsigned slices_of(int64_t samples, int64_t blocks) {
  return static_cast<unsigned>(std::max<int64_t>(1, std::min(samples, kManyBlocks / blocks)));
}

template <int VEC, typename Op, typename T>
void launch_frozen(const Op& op, const BatchShape& shape, const T* x, T* y, cudaStream_t stream) {
  const auto tiling = Tiling::of(shape.samples, shape.sample_size / VEC, Op::packs);
  launch(frozen_kernel<Op, T, VEC>, tiling.blocks(), kBlock, 0, stream, op, tiling,
         Divisor(shape.references), x, y);
}

template <int VEC, typename Op, typename T>
void launch_scope(const Op& op, const BatchShape& shape, const T* x, T* y, cudaStream_t stream) {
  const auto tiling = Tiling::of(shape.references, shape.sample_size / VEC, kScopePacks);
  const unsigned slices = slices_of(shape.samples / shape.references - 1, tiling.blocks());
  launch(scope_kernel<Op, T, VEC>, tiling.blocks() * slices, kBlock, 0, stream, op, tiling,
         shape.samples, Divisor(slices), x, y);
}

}  // namespace linscope
