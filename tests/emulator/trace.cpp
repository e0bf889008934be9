#include "trace.h"

#include <cstdint>
#include <vector>

#include "device_memory.h"
#include "faults.h"
#include "happens_before.h"
#include "machine.h"
#include "module.h"
#include "shared_memory.h"
#include "stacks.h"
#include "traffic.h"

namespace emulator::trace {
namespace {

// The last write of a byte, and its last reads by two threads: what a race can be with. A third
// reader is forgotten.
struct Cell {
  Event write, reads[2];
};

BlockClock clock;
Traffic traffic;
int32_t first_block = 0;  // of the launch
std::vector<std::vector<Cell>> global_cells;
std::vector<Cell> shared_cells;

// A kind of memory: shared memory forgets with its block, global memory lasts.
struct Space {
  const char *read_race, *write_race, *uninitialised;
  int32_t races_since, values_since;  // the first block whose events count
  bool initialised;
};

Space shared_space() {
  return {"shared memory race with an earlier read",
          "shared memory race with an earlier write",
          "read of uninitialised shared memory",
          clock.block(),
          clock.block(),
          false};
}

Space global_space(const Buffer& buffer) {
  return {"global memory race with an earlier read",
          "global memory race with an earlier write",
          "read of uninitialised global memory",
          first_block,
          0,
          buffer.role != Role::kOutput};
}

void touch(Cell* cells, size_t bytes, Kind kind, const Space& space, const void* code) {
  const unsigned thread = current->number;
  const bool atomic = kind == Kind::kAtomic;
  const Event now = clock.event(thread, atomic);
  const auto races = [&](const Event& e) {
    return e.block >= space.races_since && !(e.atomic && atomic) && !clock.before(e, thread);
  };
  for (Cell* cell = cells; cell < cells + bytes; ++cell) {
    if (races(cell->write)) fault(space.write_race, code);
    if (kind != Kind::kWrite && cell->write.block < space.values_since && !space.initialised) {
      fault(space.uninitialised, code);
    }
    if (kind == Kind::kRead) {
      const Event& last = cell->reads[0];
      if (last.block != now.block || last.thread != now.thread) cell->reads[1] = last;
      cell->reads[0] = now;
    } else {
      for (Event& read : cell->reads) {
        if (races(read)) fault(space.read_race, code);
        read = Event();
      }
      cell->write = now;
    }
  }
}

void shared_access(const void* p, size_t bytes, Kind kind, const void* code) {
  const size_t at = shared::offset(p);
  for (const shared::Array& a : shared::arrays()) {
    const size_t begin = shared::offset(a.data);
    if (at < begin || at + bytes > begin + a.size) continue;
    touch(&shared_cells[at], bytes, kind, shared_space(), code);
    return;
  }
  fault("shared access out of bounds", code);
}

void global_access(const void* p, size_t bytes, Kind kind, const void* code) {
  for (size_t i = 0; i < buffers().size(); ++i) {
    const Buffer& buffer = buffers()[i];
    if (!buffer.holds(p, bytes)) continue;
    if (kind != Kind::kRead && buffer.role == Role::kInput) fault("write to an input", code);
    const auto at = reinterpret_cast<uintptr_t>(p);
    global_cells.resize(buffers().size());
    global_cells[i].resize(buffer.size);
    touch(&global_cells[i][at - reinterpret_cast<uintptr_t>(buffer.data)], bytes, kind,
          global_space(buffer), code);
    traffic.access(buffer, current->number, at, bytes, kind != Kind::kRead,
                   reinterpret_cast<uintptr_t>(code));
    return;
  }
  if (kind == Kind::kRead && in_module(p)) return;  // constants
  fault(kind == Kind::kRead ? "global read out of bounds" : "global write out of bounds", code);
}

}  // namespace

void begin_launch() { first_block = clock.block() + 1; }

void begin_block(size_t threads) {
  clock.begin_block(threads);
  shared_cells.resize(shared::arena_size());
}

void end_block() { traffic.end_block(); }
void block_barrier() { clock.block_barrier(); }
void warp_barrier(unsigned warp, unsigned mask) { clock.warp_barrier(warp, mask); }

void access(const void* p, size_t bytes, Kind kind, const void* code) {
  if (!current || stacks::holds(p)) return;
  // Only sizes that one instruction can move: others are several instructions.
  const bool single = bytes <= 16 && (bytes & (bytes - 1)) == 0;
  if (single && reinterpret_cast<uintptr_t>(p) % bytes != 0) fault("misaligned access", code);
  if (shared::offset(p) < shared::arena_size()) {
    shared_access(p, bytes, kind, code);
  } else {
    global_access(p, bytes, kind, code);
  }
}

void reset() {
  traffic = Traffic();
  global_cells.clear();
}

std::string report() { return traffic.report(); }

}  // namespace emulator::trace
