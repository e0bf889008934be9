// Sees every load and store of a kernel: tells races, accesses out of bounds and reads of what was
// never written, and counts what the memory system would have to move. In the trace build alone.
#pragma once

#include <cstddef>
#include <string>

namespace emulator::trace {

enum class Kind { kRead, kWrite, kAtomic };

#ifdef EMULATOR_TRACE
void begin_launch();
void begin_block(size_t threads);
void end_block();

void block_barrier();
void warp_barrier(unsigned warp, unsigned mask);

// `code` is the address behind the instruction.
void access(const void* p, size_t bytes, Kind kind, const void* code);

void reset();
std::string report();
#else
inline void begin_launch() {}
inline void begin_block(size_t) {}
inline void end_block() {}
inline void block_barrier() {}
inline void warp_barrier(unsigned, unsigned) {}
inline void access(const void*, size_t, Kind, const void*) {}
inline void reset() {}
inline std::string report() { return {}; }
#endif

}  // namespace emulator::trace
