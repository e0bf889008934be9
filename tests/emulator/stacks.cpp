#include "stacks.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#include "poison.h"

namespace emulator::stacks {
namespace {

const size_t page = sysconf(_SC_PAGESIZE), each = kSize + page;

char* map() {
  void* p = mmap(nullptr, each * kCount, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  char* base = static_cast<char*>(p);
  for (unsigned i = 0; i < kCount; ++i) mprotect(base + i * each, page, PROT_NONE);
  return base;
}

char* const all = map();

}  // namespace

char* stack(unsigned thread) { return all + thread * each + page; }

bool holds(const void* p) {
  return reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(all) < each * kCount;
}

void reset() {
  for (unsigned i = 0; i < kCount; ++i) permit(stack(i), kSize);
}

}  // namespace emulator::stacks
