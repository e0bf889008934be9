#include "device_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "faults.h"
#include "poison.h"

namespace emulator {
namespace {

std::vector<Buffer> all;

constexpr size_t kAlignment = 256;

size_t rounded(size_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

std::shared_ptr<void> sparse(size_t size) {
  void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                 -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  return {p, [size](void* q) { munmap(q, size); }};
}

std::shared_ptr<void> aligned(size_t size) {
  void* p = nullptr;
  if (posix_memalign(&p, kAlignment, size) != 0) throw std::bad_alloc();
  return {p, std::free};
}

#ifdef __SANITIZE_ADDRESS__
constexpr size_t kSurroundings = 0;  // the allocator has its own, right behind the last byte
#else
constexpr size_t kSurroundings = kAlignment;
#endif

}  // namespace

void* allocate(const char* name, Role role, size_t size, size_t offset) {
  Buffer buffer{name, role, nullptr, size, nullptr};
  if (role == Role::kSparse) {
    buffer.owner = sparse(size + offset);
    buffer.data = static_cast<char*>(buffer.owner.get()) + offset;
  } else {
    const size_t behind = kSurroundings ? rounded(offset + size) - offset + kSurroundings : size;
    buffer.owner = aligned(std::max<size_t>(kSurroundings + offset + behind, 1));
    char* base = static_cast<char*>(buffer.owner.get());
    buffer.data = base + kSurroundings + offset;
    std::memset(base, kPoison, kSurroundings + offset + behind);
    forbid(base, kSurroundings + offset);
  }
  all.push_back(buffer);
  return buffer.data;
}

void free_buffers() {
  for (const Buffer& b : all) permit(b.owner.get(), b.data - static_cast<char*>(b.owner.get()));
  all.clear();
}

const std::vector<Buffer>& buffers() { return all; }

void check_surroundings() {
  for (const Buffer& b : all) {
    if (b.role == Role::kSparse || kSurroundings == 0) continue;
    if (!poisoned(b.data - kSurroundings, kSurroundings) ||
        !poisoned(b.data + b.size, kSurroundings)) {
      fault(("write out of bounds of " + b.name).c_str(), nullptr);
    }
  }
}

}  // namespace emulator
