#include "machine.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <vector>

#include "faults.h"
#include "fiber.h"
#include "schedule.h"
#include "shared_memory.h"
#include "stacks.h"
#include "trace.h"

namespace emulator {

Thread* current = nullptr;

namespace {

constexpr unsigned kWarp = 32;

enum class State { kReady, kInWarp, kAtBarrier, kDone };

struct Running : Thread {
  Fiber fiber;
  State state;
  Place place;  // where it waits
  bool vote;
};

// Where the lanes of one mask meet. A lane may still read what was posted while the others have
// gone on to the next meeting, but not further: hence two rows.
struct Meeting {
  unsigned arrived = 0, generation = 0;
  Place place;
  uint64_t posted[2][kWarp];
};

// One block runs at a time.
struct Block {
  std::vector<Running> threads;
  std::vector<std::map<unsigned, Meeting>> warps;  // by mask
  unsigned live, waiting;
  void (*body)(void*);
  void* argument;
  bool abandoned;
} block;

Running& self() { return *static_cast<Running*>(current); }

// The launch is past saving: no thread goes on. Their stacks are left as they are; kernels own
// nothing that would have to be given back.
[[noreturn]] void abandon() {
  block.abandoned = true;
  self().fiber.leave();
  std::abort();
}

[[noreturn]] void abandon(const char* what, Place place) {
  fault(what, place);
  abandon();
}

void open_barrier() {
  block.waiting = 0;
  trace::block_barrier();
  for (Running& t : block.threads) {
    if (t.state == State::kAtBarrier) t.state = State::kReady;
  }
}

void wait(State state, Place place) {
  self().state = state;
  self().place = place;
  self().fiber.leave();
}

void thread_main() {
  Fiber::arrived();
  block.body(block.argument);
  self().state = State::kDone;
  // A barrier waits for the threads that have not ended.
  if (--block.live > 0 && block.waiting == block.live) open_barrier();
  self().fiber.leave();
  std::abort();
}

void report_deadlock() {
  for (Running& t : block.threads) {
    if (t.state == State::kInWarp || t.state == State::kAtBarrier) {
      current = &t;
      fault("deadlock: threads wait here for others that never come", t.place);
    }
  }
}

void start_block(dim3 grid, dim3 size, int64_t number) {
  const unsigned threads = size.x * size.y * size.z;
  block.threads.resize(threads);
  block.warps.assign((threads + kWarp - 1) / kWarp, {});
  block.live = threads;
  block.waiting = 0;
  for (unsigned i = 0; i < threads; ++i) {
    Running& t = block.threads[i];
    t.index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
    t.block = {static_cast<unsigned>(number % grid.x),
               static_cast<unsigned>(number / grid.x % grid.y),
               static_cast<unsigned>(number / grid.x / grid.y)};
    t.block_size = size;
    t.grid_size = grid;
    t.number = i;
    t.block_number = number;
    t.state = State::kReady;
    t.fiber.prepare(stacks::stack(i), stacks::kSize, thread_main);
  }
}

void run_block() {
  const std::vector<int64_t> order = ordering(0, block.threads.size(), schedule.order);
  while (block.live > 0 && !block.abandoned) {
    bool progress = false;
    for (const int64_t i : order) {
      Running& t = block.threads[i];
      if (t.state != State::kReady) continue;
      progress = true;
      current = &t;
      t.fiber.enter();
      if (block.abandoned) break;
    }
    if (!progress) {
      report_deadlock();
      block.abandoned = true;
    }
  }
  current = nullptr;
}

std::vector<Launch> seen;

bool acceptable(dim3 grid, dim3 size) {
  return grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x < 1u << 31 && grid.y < 1u << 16 &&
         grid.z < 1u << 16 && size.x > 0 && size.y > 0 && size.z > 0 && size.z <= 64 &&
         size.x * size.y * size.z <= stacks::kCount;
}

}  // namespace

const std::vector<Launch>& launches() { return seen; }
void forget_launches() { seen.clear(); }

void run(dim3 grid, dim3 size, size_t shared_bytes, void (*body)(void*), void* argument) {
  if (!acceptable(grid, size)) {
    fault("a grid or block that no device takes", static_cast<const void*>(nullptr));
    return;
  }
  block.body = body;
  block.argument = argument;
  block.abandoned = false;
  const int64_t blocks = static_cast<int64_t>(grid.x) * grid.y * grid.z;
  seen.push_back({blocks, int64_t{size.x} * size.y * size.z, shared_bytes});
  trace::begin_launch();
  for (const int64_t number :
       ordering(schedule.first_block, std::min(blocks, schedule.last_block), schedule.order)) {
    start_block(grid, size, number);
    shared::begin_block();
    if (!shared::array(nullptr, shared_bytes)) {
      fault("more shared memory than a block can have", static_cast<const void*>(nullptr));
      return;
    }
    trace::begin_block(block.threads.size());
    run_block();
    trace::end_block();
    shared::end_block();
    if (block.abandoned) {
      stacks::reset();
      return;
    }
  }
}

void* shared_array(const void* declaration, size_t bytes) {
  void* array = shared::array(declaration, bytes);
  if (!array) {
    fault("more shared memory than a block can have", static_cast<const void*>(nullptr));
    abandon();
  }
  return array;
}

void* shared_dynamic() { return shared::array(nullptr, 0); }

void block_barrier(Place place) {
  for (const Running& t : block.threads) {
    if (t.state != State::kAtBarrier) continue;
    if (t.place.line() != place.line() || t.place.column() != place.column()) {
      abandon("divergent barrier: threads of a block wait in two places", place);
    }
    break;
  }
  ++block.waiting;
  self().state = State::kAtBarrier;
  if (block.waiting == block.live) {
    open_barrier();
  } else {
    wait(State::kAtBarrier, place);
  }
}

unsigned block_count(Place place, bool vote) {
  self().vote = vote;
  block_barrier(place);
  unsigned count = 0;
  for (const Running& t : block.threads) count += t.state != State::kDone && t.vote;
  block_barrier(place);
  return count;
}

namespace {

const uint64_t* meet(Place place, unsigned mask, uint64_t value, bool fence) {
  const unsigned warp = self().number / kWarp, lane = self().number % kWarp;
  if (!(mask >> lane & 1u)) abandon("wrong mask: it does not name the lane that calls", place);
  Meeting& meeting = block.warps[warp][mask];
  if (meeting.arrived == 0) {
    meeting.place = place;
  } else if (meeting.place.line() != place.line() || meeting.place.column() != place.column()) {
    abandon("wrong mask: its lanes meet in two places", place);
  }
  const unsigned row = meeting.generation % 2;
  meeting.posted[row][lane] = value;
  meeting.arrived |= 1u << lane;
  if (meeting.arrived != mask) {
    wait(State::kInWarp, place);
  } else {
    meeting.arrived = 0;
    ++meeting.generation;
    if (fence) trace::warp_barrier(warp, mask);
    for (unsigned i = 0; i < kWarp && warp * kWarp + i < block.threads.size(); ++i) {
      Running& t = block.threads[warp * kWarp + i];
      if ((mask >> i & 1u) && t.state == State::kInWarp) t.state = State::kReady;
    }
  }
  return meeting.posted[row];
}

}  // namespace

void atomic_access(const void* p, size_t bytes, const void* code) {
  trace::access(p, bytes, trace::Kind::kAtomic, code);
}

void warp_barrier(Place place, unsigned mask) { meet(place, mask, 0, true); }

const uint64_t* warp_exchange(Place place, unsigned mask, uint64_t value) {
  return meet(place, mask, value, false);
}

}  // namespace emulator
