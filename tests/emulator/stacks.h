// The stacks of a block's threads, with a page between them that no one may touch.
#pragma once

#include <cstddef>

namespace emulator::stacks {

#ifdef __SANITIZE_ADDRESS__
constexpr size_t kSize = 256 * 1024;
#else
constexpr size_t kSize = 64 * 1024;
#endif
constexpr unsigned kCount = 1024;  // threads that a block may have

char* stack(unsigned thread);
bool holds(const void* p);
// Makes stacks usable again on which functions were left without returning.
void reset();

}  // namespace emulator::stacks
