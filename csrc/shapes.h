// Where the elements of a batch lie in memory: `references` reference samples, then their probes;
// probe j belongs to reference j mod references. No torch here: kernels and CPU loops share these.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define LINSCOPE_FN __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define LINSCOPE_FN __forceinline
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

struct NormShape {
  int64_t samples, references, channels, area;
  bool channels_last;

  LINSCOPE_FN int64_t base(int64_t sample, int64_t channel) const {
    return channels_last ? sample * area * channels + channel
                         : (sample * channels + channel) * area;
  }
};

}  // namespace linscope
