#include "kernels/bugs.cuh"

#include "call.h"

namespace {

using emulator::Arguments;
using emulator::Launcher;

using Kernel = void (*)(const float*, float*);

// With an integer that says whether to run the mistake or its repair.
template <Kernel buggy, Kernel fixed>
void run(Arguments& a) {
  const Kernel kernel = a.integer() ? fixed : buggy;
  const float* x = a.buffer();
  float* out = a.buffer();
  const size_t shared = bugs::kThreads * sizeof(float);
  linscope::launch(kernel, bugs::kBlocks, bugs::kThreads, shared, emulator::kStream, x, out);
}

#define BUG(name) const Launcher name(#name, run<bugs::name<false>, bugs::name<true>>)

BUG(missing_barrier);
BUG(divergent_barrier);
BUG(full_mask_in_a_branch);
BUG(lane_outside_of_its_mask);
BUG(source_outside_of_the_mask);
BUG(shared_write_out_of_bounds);
BUG(shared_read_out_of_bounds);
BUG(dynamic_shared_out_of_bounds);
BUG(global_write_off_by_one);
BUG(global_read_off_by_one);
BUG(uninitialised_shared_read);
BUG(missing_syncwarp);
BUG(syncwarp_of_the_wrong_lanes);
BUG(misaligned_vector);
BUG(blocks_write_the_same);
BUG(write_to_an_input);
BUG(too_much_shared_memory);

const Launcher another_stream("another_stream", [](Arguments& a) {
  const cudaStream_t stream = a.integer() ? emulator::kStream : nullptr;
  const float* x = a.buffer();
  float* out = a.buffer();
  linscope::launch(bugs::copy, bugs::kBlocks, bugs::kThreads, 0, stream, x, out);
});

const Launcher lost_update("lost_update", [](Arguments& a) {
  const Kernel kernel = a.integer() ? bugs::lost_update<true> : bugs::lost_update<false>;
  const float* x = a.buffer();
  float* out = a.buffer();
  linscope::launch(bugs::zero, bugs::kBlocks, bugs::kThreads, 0, emulator::kStream, out);
  linscope::launch(kernel, bugs::kBlocks, bugs::kThreads, 0, emulator::kStream, x, out);
});

}  // namespace
