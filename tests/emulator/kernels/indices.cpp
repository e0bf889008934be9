// The functions that say where a pixel lies, run for places that no batch here could reach.
#include "call.h"
#include "max_pool2d.cuh"

using namespace linscope;
using emulator::Arguments;
using emulator::Launcher;

namespace {

// One int64 per item: the place at which its sample, channel, row and column lie.
template <typename index_t>
void places(Arguments& a) {
  Planes planes;
  planes.channels = static_cast<int>(a.integer());
  planes.height = static_cast<int>(a.integer());
  planes.width = static_cast<int>(a.integer());
  planes.channels_last = a.integer() != 0;
  const int64_t count = a.integer();
  const int64_t* items = a.buffer();
  int64_t* result = a.buffer();
  for (int64_t i = 0; i < count; ++i) {
    const PixelIndex at = pixel_at<index_t>(planes, static_cast<index_t>(items[i]));
    const bool inside = at.channel >= 0 && at.channel < planes.channels && at.row >= 0 &&
                        at.row < planes.height && at.column >= 0 && at.column < planes.width;
    result[i] = inside ? planes.base(at.sample, at.channel) + planes.pixel(at.row, at.column) : -1;
  }
}

const Launcher places_32("places_32", places<int32_t>);
const Launcher places_64("places_64", places<int64_t>);

}  // namespace
