// The CUDA device language for g++: kernels that include this header run on the CPU, one fiber per
// CUDA thread. Included by csrc/launch.h wherever nvcc is not the compiler.
#pragma once

// NVIDIA's own vector and half types; their functions for the host are what the kernels use.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <vector_types.h>

#include <cstdint>
#include <cstring>

#include "machine.h"

// NVIDIA's headers leave these as attributes that g++ ignores, __shared__ among them: a kernel
// would then run, wrongly, on memory that is its thread's own.
#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __shared__ static_assert(false, "declare shared memory with SHARED_ARRAY or SHARED_DYN");
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

using cudaStream_t = struct CUstream_st*;

#define threadIdx (::emulator::thread_index())
#define blockIdx (::emulator::block_index())
#define blockDim (::emulator::block_size())
#define gridDim (::emulator::grid_size())

// The address of a declaration's own variable tells it from all others, also among the
// instantiations of a template.
#define SHARED_ARRAY(T, name, n)            \
  static const char name##_declaration = 0; \
  T(&name)                                  \
  [n] = *static_cast<T(*)[n]>(::emulator::shared_array(&name##_declaration, sizeof(T) * (n)))
#define SHARED_DYN(T, name) T* name = static_cast<T*>(::emulator::shared_dynamic())

#define LAUNCH_LIMIT(name, value) inline const int64_t& name = ::emulator::limit(#name, value)

namespace emulator {

// The stream that an operator is given. Its launches wait for one another only on the same one.
inline const cudaStream_t kStream = reinterpret_cast<cudaStream_t>(uintptr_t{64});

}  // namespace emulator

namespace linscope {

template <typename... P, typename... A>
UNTRACED void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                     cudaStream_t stream, A... args) {
  if (stream != emulator::kStream) {
    emulator::fault("a launch on another stream", emulator::Place::current());
  }
  auto thread = [&]() UNTRACED { kernel(static_cast<P>(args)...); };
  emulator::run(
      grid, block, shared, [](void* of) UNTRACED { (*static_cast<decltype(thread)*>(of))(); },
      &thread);
}

}  // namespace linscope

// A call's place in the source tells one collective from another. (Its return address would not:
// the compiler makes several calls of one.)
#define COLLECTIVE UNTRACED inline __attribute__((noinline))
#define HERE ::emulator::Place place = ::emulator::Place::current()

COLLECTIVE void __syncthreads(HERE) { emulator::block_barrier(place); }
COLLECTIVE int __syncthreads_count(int predicate, HERE) {
  return static_cast<int>(emulator::block_count(place, predicate != 0));
}
COLLECTIVE void __syncwarp(unsigned mask = ~0u, HERE) { emulator::warp_barrier(place, mask); }

COLLECTIVE unsigned __ballot_sync(unsigned mask, int predicate, HERE) {
  const uint64_t* votes = emulator::warp_exchange(place, mask, predicate != 0);
  unsigned ballot = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1u) ballot |= static_cast<unsigned>(votes[lane]) << lane;
  }
  return ballot;
}
COLLECTIVE int __any_sync(unsigned mask, int predicate, HERE) {
  return __ballot_sync(mask, predicate, place) != 0;
}
COLLECTIVE int __all_sync(unsigned mask, int predicate, HERE) {
  return __ballot_sync(mask, predicate, place) == mask;
}

namespace emulator {

// Every lane of the mask posts its value, and takes that of lane `source`, or keeps its own where
// the source lies outside of its part of the warp.
template <typename T>
COLLECTIVE T shuffle(Place place, unsigned mask, T value, unsigned source, bool inside) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t posted = 0;
  std::memcpy(&posted, &value, sizeof(T));
  const uint64_t* all = warp_exchange(place, mask, posted);
  if (!inside) return value;
  if (!(mask >> source & 1u)) fault("shuffle from a lane outside of the mask", place);
  std::memcpy(&value, &all[source], sizeof(T));
  return value;
}

}  // namespace emulator

template <typename T>
COLLECTIVE T __shfl_sync(unsigned mask, T value, int source, int width = 32, HERE) {
  const unsigned first = emulator::lane() & ~(width - 1u);
  return emulator::shuffle(place, mask, value, first | (source & (width - 1u)), true);
}
template <typename T>
COLLECTIVE T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, HERE) {
  const unsigned lane = emulator::lane(), within = lane & (width - 1u);
  return emulator::shuffle(place, mask, value, lane + delta,
                           within + delta < static_cast<unsigned>(width));
}
template <typename T>
COLLECTIVE T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, HERE) {
  const unsigned lane = emulator::lane(), within = lane & (width - 1u);
  return emulator::shuffle(place, mask, value, lane - delta, within >= delta);
}
template <typename T>
COLLECTIVE T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32, HERE) {
  const unsigned lane = emulator::lane(), source = lane ^ flip;
  return emulator::shuffle(place, mask, value, source,
                           (source & ~(width - 1u)) <= (lane & ~(width - 1u)));
}

// Threads are fibers of one OS thread, which change only in collectives: an update cannot be
// interrupted. What is emulated is its kind, which tells the trace that it is no race.
template <typename T>
COLLECTIVE T atomicAdd(T* p, T value) {
  emulator::atomic_access(p, sizeof(T), __builtin_return_address(0));
  const T old = *p;
  *p = old + value;
  return old;
}
template <typename T>
COLLECTIVE T atomicMax(T* p, T value) {
  emulator::atomic_access(p, sizeof(T), __builtin_return_address(0));
  const T old = *p;
  if (value > old) *p = value;
  return old;
}
template <typename T>
COLLECTIVE T atomicOr(T* p, T value) {
  emulator::atomic_access(p, sizeof(T), __builtin_return_address(0));
  const T old = *p;
  *p = old | value;
  return old;
}

template <typename T>
inline __attribute__((always_inline)) void __stwb(T* p, T value) {
  *p = value;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

#undef COLLECTIVE
#undef HERE
