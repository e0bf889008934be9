// Which threads run, and in which order.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace emulator {

// 0: as numbered, 1: in reverse, any other number: shuffled with that seed. Blocks and the threads
// of a block are ordered alike.
std::vector<int64_t> ordering(int64_t first, int64_t last, unsigned order);

// Blocks [first_block, last_block) of the grid run. All of them, but where indices of a grid too
// large to run are looked at.
struct Schedule {
  unsigned order = 0;
  int64_t first_block = 0, last_block = std::numeric_limits<int64_t>::max();
};

extern Schedule schedule;

}  // namespace emulator
