// The functions that say where a pixel lies, run for places that no batch here could reach.
#include "call.h"
#include "max_pool2d.cuh"

using namespace linscope;
using emulator::Arguments;
using emulator::Launcher;

namespace {

// One int64 per item: the place at which its sample, channel, row and column lie.
template <bool LAST>
void places(const Planes& planes, int64_t count, const int64_t* items, int64_t* result) {
  const PackIndex index(planes, 1);
  const Divisor sample(planes.channels * planes.area());
  for (int64_t i = 0; i < count; ++i) {
    const Place place{true, sample.divide(items[i]), sample.modulo(items[i])};
    const PixelIndex at = index.of<LAST, 1>(place);
    const bool inside = at.channel >= 0 && at.channel < planes.channels && at.row >= 0 &&
                        at.row < planes.height && at.column >= 0 && at.column < planes.width;
    result[i] = inside ? planes.base(at.sample, at.channel) + planes.pixel(at.row, at.column) : -1;
  }
}

const Launcher launcher("places", [](Arguments& a) {
  Planes planes;
  planes.channels = static_cast<int>(a.integer());
  planes.height = static_cast<int>(a.integer());
  planes.width = static_cast<int>(a.integer());
  planes.channels_last = a.integer() != 0;
  const int64_t count = a.integer();
  const int64_t* items = a.buffer();
  int64_t* result = a.buffer();
  if (planes.channels_last) {
    places<true>(planes, count, items, result);
  } else {
    places<false>(planes, count, items, result);
  }
});

// Two int64 per pair: quotient and remainder.
const Launcher divisor("divisor", [](Arguments& a) {
  const int64_t count = a.integer();
  const int64_t *numbers = a.buffer(), *divisors = a.buffer();
  int64_t* result = a.buffer();
  for (int64_t i = 0; i < count; ++i) {
    const Divisor by(divisors[i]);
    result[2 * i] = by.divide(numbers[i]);
    result[2 * i + 1] = by.modulo(numbers[i]);
  }
});

}  // namespace
