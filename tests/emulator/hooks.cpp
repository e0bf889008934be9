// What g++ calls for every load and store of code compiled with -fsanitize=thread, in place of
// ThreadSanitizer's own library.
#include "trace.h"

using emulator::trace::access;
using emulator::trace::Kind;

#define CODE __builtin_extract_return_addr(__builtin_return_address(0))
#define HOOKS(bytes)                                                                  \
  void __tsan_read##bytes(void* p) { access(p, bytes, Kind::kRead, CODE); }           \
  void __tsan_write##bytes(void* p) { access(p, bytes, Kind::kWrite, CODE); }         \
  void __tsan_unaligned_read##bytes(void* p) { access(p, bytes, Kind::kRead, CODE); } \
  void __tsan_unaligned_write##bytes(void* p) { access(p, bytes, Kind::kWrite, CODE); }

extern "C" {
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(void* p, size_t bytes) { access(p, bytes, Kind::kRead, CODE); }
void __tsan_write_range(void* p, size_t bytes) { access(p, bytes, Kind::kWrite, CODE); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
