// Where the elements of a batch lie in memory: `references` reference samples, then their probes;
// probe j belongs to reference j mod references. No torch here: kernels and CPU loops share these.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define LINSCOPE_FN __host__ __device__ __forceinline__
#else
#define LINSCOPE_FN inline __attribute__((always_inline))
#endif

namespace linscope {

struct BatchShape {
  int64_t samples, references, sample_size;
};

// Decisions of `bits` per element, packed lowest bits first in the order of memory; each
// reference's row starts on a byte.
struct PackedShape : BatchShape {
  int64_t row_bytes;
};

// Where planes of a (samples, channels, height, width) tensor lie in memory.
struct Planes {
  int channels, height, width;
  bool channels_last;

  LINSCOPE_FN int64_t area() const { return static_cast<int64_t>(height) * width; }
  LINSCOPE_FN int64_t base(int64_t sample, int channel) const {
    return channels_last ? sample * area() * channels + channel
                         : (sample * channels + channel) * area();
  }
  LINSCOPE_FN int64_t pixel(int row, int column) const {
    return (static_cast<int64_t>(row) * width + column) * (channels_last ? channels : 1);
  }
};

struct PixelIndex {
  int64_t sample;
  int channel, row, column;
};

// The pixel that comes `item`-th in memory. `index_t` is 32 bits wide where that is enough:
// division is costly.
template <typename index_t>
LINSCOPE_FN PixelIndex pixel_at(const Planes& planes, index_t item) {
  const index_t channels = planes.channels, height = planes.height, width = planes.width;
  const index_t inner = planes.channels_last ? channels : width;
  const index_t outer = item / inner, in = item - outer * inner;
  const index_t middle_size = planes.channels_last ? width : height;
  const index_t top = outer / middle_size, middle = outer - top * middle_size;
  const index_t last_size = planes.channels_last ? height : channels;
  const index_t sample = top / last_size, last = top - sample * last_size;
  if (planes.channels_last)
    return {sample, static_cast<int>(in), static_cast<int>(last), static_cast<int>(middle)};
  return {sample, static_cast<int>(last), static_cast<int>(middle), static_cast<int>(in)};
}

struct NormShape {
  int64_t samples, references, channels, area;
  bool channels_last;

  LINSCOPE_FN int64_t base(int64_t sample, int64_t channel) const {
    return channels_last ? sample * area * channels + channel
                         : (sample * channels + channel) * area;
  }
};

}  // namespace linscope
