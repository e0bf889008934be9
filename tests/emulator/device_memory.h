// Global memory: the buffers that a launch may touch, each with its exact size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace emulator {

enum class Role {
  kInput,   // full of data, not to be written
  kOutput,  // poison until it is written
  kSparse,  // more than the machine has: zero, and real only where it is touched
  kInPlace  // full of data, and written over
};

struct Buffer {
  std::string name;
  Role role;
  char* data;
  size_t size;
  std::shared_ptr<void> owner;

  bool holds(const void* p, size_t bytes) const {
    const auto at = reinterpret_cast<uintptr_t>(p), begin = reinterpret_cast<uintptr_t>(data);
    return at >= begin && at + bytes <= begin + size;
  }
};

// `offset` bytes behind an address as aligned as cudaMalloc's.
void* allocate(const char* name, Role role, size_t size, size_t offset);
void free_buffers();
const std::vector<Buffer>& buffers();

// Reports what was written around the buffers. AddressSanitizer's build does it at the access.
void check_surroundings();

}  // namespace emulator
