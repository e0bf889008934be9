// The emulated machine as kernels see it: where a thread is in its grid, where threads meet, and
// the memory that a block shares.
#pragma once

#include <vector_types.h>

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <vector>

// Code of the emulator that kernels call is not code of the kernels: the trace must not see it.
#define UNTRACED __attribute__((no_sanitize("thread")))

namespace emulator {

using Place = std::source_location;

struct Thread;

// Where the running thread is. Null between launches.
extern Thread* current;

struct Thread {
  uint3 index, block;
  dim3 block_size, grid_size;
  unsigned number;       // within its block
  int64_t block_number;  // within its grid
};

UNTRACED inline uint3 thread_index() { return current->index; }
UNTRACED inline uint3 block_index() { return current->block; }
UNTRACED inline dim3 block_size() { return current->block_size; }
UNTRACED inline dim3 grid_size() { return current->grid_size; }
UNTRACED inline unsigned lane() { return current->number % 32; }

struct Launch {
  int64_t blocks, threads;  // threads of a block
  size_t shared_bytes;
};

// All since the last call, in their order.
const std::vector<Launch>& launches();
void forget_launches();

// Runs body(argument) once for every thread of the grid.
void run(dim3 grid, dim3 block, size_t shared_bytes, void (*body)(void*), void* argument);

// The same memory for every thread of a block that asks with the same declaration.
void* shared_array(const void* declaration, size_t bytes);
void* shared_dynamic();

void block_barrier(Place place);
unsigned block_count(Place place, bool vote);

// All lanes of the mask meet; with memory made visible between them, or only with the values that
// they post. The 32 values are valid until the calling lane's next exchange.
void warp_barrier(Place place, unsigned mask);
const uint64_t* warp_exchange(Place place, unsigned mask, uint64_t value);

void atomic_access(const void* p, size_t bytes, const void* code);

// A number that launches go by, under its name: `value` until a test sets another.
const int64_t& limit(const char* name, int64_t value);

// Reports what the kernel does wrong, and goes on.
void fault(const char* what, Place place);

}  // namespace emulator
