// Which accesses of a block's threads are ordered: by program order, by a barrier of the block, or
// by a barrier of the warp. Shuffles and ballots order nothing in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace emulator::trace {

// Who touched a byte, and when. Blocks count over all launches, so that a block tells its launch.
struct Event {
  int32_t block = -1;
  uint32_t barriers = 0, clock = 0;
  uint16_t thread = 0;
  bool atomic = false;
};

class BlockClock {
 public:
  void begin_block(size_t threads);
  void block_barrier() { ++barriers_; }
  void warp_barrier(unsigned warp, unsigned mask);

  Event event(unsigned thread, bool atomic) const;
  // Whether an earlier event of this block comes before what `thread` does now.
  bool before(const Event& earlier, unsigned thread) const;
  int32_t block() const { return block_; }

 private:
  // A thread's time, and how far into the time of its warp's lanes it can see.
  struct Clock {
    uint32_t own = 1, seen[32] = {};
  };

  int32_t block_ = -1;
  uint32_t barriers_ = 0;
  std::vector<Clock> clocks_;
};

}  // namespace emulator::trace
