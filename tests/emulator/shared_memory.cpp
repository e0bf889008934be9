#include "shared_memory.h"

#include <cstdint>
#include <cstring>

#include "faults.h"
#include "poison.h"

namespace emulator::shared {
namespace {

constexpr size_t kLimit = 227 * 1024;  // of a block, on the largest devices
constexpr size_t kRedZone = 64, kArena = kLimit + 16 * kRedZone;

alignas(128) char arena[kArena];
size_t used = 0, requested = 0;
std::vector<Array> declared;

void poison(char* p, size_t size) {
  permit(p, size);
  std::memset(p, kPoison, size);
}

}  // namespace

void begin_block() {
  declared.clear();
  poison(arena, kRedZone);
  forbid(arena, kRedZone);
  used = kRedZone;
  requested = 0;
}

void* array(const void* declaration, size_t size) {
  for (const Array& a : declared) {
    if (a.declaration == declaration) return a.data;
  }
  const size_t next = (used + size + kRedZone + 15) / 16 * 16;
  requested += size;
  if (requested > kLimit || next > kArena) return nullptr;
  char* data = arena + used;
  poison(data, next - used);
  forbid(data + size, next - used - size);
  declared.push_back({declaration, data, size});
  used = next;
  return data;
}

void end_block() {
  permit(arena, used);
  const char* end = arena;
  bool clean = true;
  for (const Array& a : declared) {
    clean = clean && poisoned(end, a.data - end);
    end = a.data + a.size;
  }
  if (!clean || !poisoned(end, arena + used - end)) {
    fault("shared write out of bounds", static_cast<const void*>(nullptr));
  }
}

const std::vector<Array>& arrays() { return declared; }

size_t arena_size() { return kArena; }

size_t offset(const void* p) {
  return reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(arena);
}

}  // namespace emulator::shared
