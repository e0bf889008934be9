// Where this library lies in memory.
#pragma once

#include <cstdint>

namespace emulator {

extern "C" {
extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char _end[] __attribute__((visibility("hidden")));
}

// An address of code as it stands in the library's file, 0 for none.
inline uintptr_t offset_in_module(uintptr_t code) {
  return code == 0 ? 0 : code - reinterpret_cast<uintptr_t>(__ehdr_start);
}

// Whether these are constants (or variables) that are compiled into the library.
inline bool in_module(const void* p) { return p >= __ehdr_start && p < _end; }

}  // namespace emulator
