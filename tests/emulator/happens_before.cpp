#include "happens_before.h"

#include <algorithm>

namespace emulator::trace {

void BlockClock::begin_block(size_t threads) {
  ++block_;
  barriers_ = 0;
  clocks_.assign(threads, {});
}

void BlockClock::warp_barrier(unsigned warp, unsigned mask) {
  uint32_t seen[32] = {};
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1u)) continue;
    Clock& clock = clocks_[warp * 32 + lane];
    for (unsigned i = 0; i < 32; ++i) seen[i] = std::max(seen[i], clock.seen[i]);
    seen[lane] = std::max(seen[lane], clock.own++);
  }
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1u) std::copy_n(seen, 32, clocks_[warp * 32 + lane].seen);
  }
}

Event BlockClock::event(unsigned thread, bool atomic) const {
  return {block_, barriers_, clocks_[thread].own, static_cast<uint16_t>(thread), atomic};
}

bool BlockClock::before(const Event& earlier, unsigned thread) const {
  if (earlier.block != block_) return false;
  if (earlier.thread == thread || earlier.barriers < barriers_) return true;
  return earlier.thread / 32 == thread / 32 &&
         earlier.clock <= clocks_[thread].seen[earlier.thread % 32];
}

}  // namespace emulator::trace
