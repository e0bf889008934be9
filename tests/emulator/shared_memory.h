// The memory that the threads of a block share: one block's at a time, in an arena with red zones.
#pragma once

#include <cstddef>
#include <vector>

namespace emulator::shared {

struct Array {
  const void* declaration;  // null: the array whose size the launch gives
  char* data;
  size_t size;
};

void begin_block();
// The array of a declaration, poison at first; null if a block cannot have so much.
void* array(const void* declaration, size_t size);
// Reports what was written between the arrays. AddressSanitizer's build does it at the access.
void end_block();

const std::vector<Array>& arrays();

size_t arena_size();
// Where a byte lies in the arena; arena_size() or more outside of it.
size_t offset(const void* p);

}  // namespace emulator::shared
