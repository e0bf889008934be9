// Memory that must not be read yet, or not be touched at all.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace emulator {

// Bytes of a NaN in every floating type, and of no sensible index.
constexpr unsigned char kPoison = 0xff;

inline bool poisoned(const char* p, size_t size) {
  return std::all_of(p, p + size, [](char c) { return static_cast<unsigned char>(c) == kPoison; });
}

inline void forbid(const void* p, size_t size) {
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(p, size);
#else
  (void)p, (void)size;
#endif
}

inline void permit(const void* p, size_t size) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(p, size);
#else
  (void)p, (void)size;
#endif
}

}  // namespace emulator
