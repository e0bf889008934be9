// Kernels with one mistake each, and the same kernels without it: what the emulator must find, and
// what it must leave in peace. Two blocks of 64 threads; x and out hold one float per thread.
#pragma once

#include "launch.h"

namespace bugs {

constexpr unsigned kThreads = 64, kBlocks = 2, kSize = kThreads * kBlocks;

__device__ __forceinline__ unsigned index() { return blockIdx.x * blockDim.x + threadIdx.x; }

template <bool FIXED>
__global__ void missing_barrier(const float* x, float* out) {
  SHARED_ARRAY(float, values, kThreads);
  values[threadIdx.x] = x[index()];
  __syncthreads();
  float sum = 0;
  for (unsigned i = 0; i < kThreads; ++i) sum += values[i];
  if (FIXED) __syncthreads();
  values[threadIdx.x] = 2 * x[index()];
  __syncthreads();
  for (unsigned i = 0; i < kThreads; ++i) sum += values[i];
  out[index()] = sum;
}

template <bool FIXED>
__global__ void divergent_barrier(const float* x, float* out) {
  SHARED_ARRAY(float, values, kThreads);
  values[threadIdx.x] = x[index()];
  if (FIXED || threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[index()] = values[kThreads - 1 - threadIdx.x];
}

template <bool FIXED>
__global__ void full_mask_in_a_branch(const float* x, float* out) {
  float value = x[index()];
  if (FIXED) {
    const float next = __shfl_down_sync(0xffffffffu, value, 1);
    if (threadIdx.x % 32 < 20) value = next;
  } else if (threadIdx.x % 32 < 20) {
    value = __shfl_down_sync(0xffffffffu, value, 1);
  }
  out[index()] = value;
}

template <bool FIXED>
__global__ void lane_outside_of_its_mask(const float* x, float* out) {
  const unsigned positive = __ballot_sync(FIXED ? 0xffffffffu : 0x0000ffffu, x[index()] > 0);
  out[index()] = static_cast<float>(__popc(positive));
}

template <bool FIXED>
__global__ void source_outside_of_the_mask(const float* x, float* out) {
  float value = x[index()];
  if (threadIdx.x % 32 < 16) {
    value = __shfl_down_sync(0x0000ffffu, value, 1, FIXED ? 16 : 32);
  }
  out[index()] = value;
}

template <bool FIXED>
__global__ void shared_write_out_of_bounds(const float* x, float* out) {
  SHARED_ARRAY(float, values, kThreads);
  float* shifted = values + (FIXED ? 0 : 1);
  shifted[threadIdx.x] = x[index()];
  __syncthreads();
  out[index()] = shifted[kThreads - 1 - threadIdx.x];
}

template <bool FIXED>
__global__ void shared_read_out_of_bounds(const float* x, float* out) {
  SHARED_ARRAY(float, values, kThreads);
  const float* end = values + kThreads;
  values[threadIdx.x] = x[index()];
  __syncthreads();
  out[index()] = *(end - threadIdx.x - (FIXED ? 1 : 0));
}

template <bool FIXED>
__global__ void dynamic_shared_out_of_bounds(const float* x, float* out) {
  SHARED_DYN(float, values);
  float* shifted = values + (FIXED ? 0 : 1);
  shifted[threadIdx.x] = x[index()];
  __syncthreads();
  out[index()] = shifted[kThreads - 1 - threadIdx.x];
}

template <bool FIXED>
__global__ void global_write_off_by_one(const float* x, float* out) {
  out[index()] = x[index()];
  if (!FIXED && index() == 0) out[kSize] = 0;
}

template <bool FIXED>
__global__ void global_read_off_by_one(const float* x, float* out) {
  const unsigned next = index() + 1;
  out[index()] = FIXED && next == kSize ? 0 : x[next];
}

template <bool FIXED>
__global__ void uninitialised_shared_read(const float* x, float* out) {
  SHARED_ARRAY(float, values, kThreads);
  if (FIXED || threadIdx.x < kThreads - 1) values[threadIdx.x] = x[index()];
  __syncthreads();
  out[index()] = values[kThreads - 1 - threadIdx.x];
}

template <bool FIXED>
__global__ void missing_syncwarp(const float* x, float* out) {
  SHARED_ARRAY(float, values, kThreads);
  values[threadIdx.x] = x[index()];
  if (FIXED) __syncwarp();
  out[index()] = values[threadIdx.x ^ 1];
}

// A barrier of part of a warp orders that part alone.
template <bool FIXED>
__global__ void syncwarp_of_the_wrong_lanes(const float* x, float* out) {
  SHARED_ARRAY(float, values, kThreads);
  values[threadIdx.x] = x[index()];
  const unsigned half = threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  __syncwarp(FIXED ? 0xffffffffu : half);
  out[index()] = values[threadIdx.x ^ 31];
}

template <bool FIXED>
__global__ void misaligned_vector(const float* x, float* out) {
  if (threadIdx.x % 4 != 0) return;
  const unsigned first = index() + (FIXED || index() + 4 == kSize ? 0 : 1);
  const linscope::Pack<float, 4> pack = linscope::load<4>(x + first);
  linscope::store(out + index(), pack);
}

template <bool FIXED>
__global__ void lost_update(const float* x, float* out) {
  if (FIXED) {
    atomicAdd(out, x[index()]);
  } else {
    out[0] += x[index()];
  }
}

template <bool FIXED>
__global__ void blocks_write_the_same(const float* x, float* out) {
  out[FIXED ? index() : threadIdx.x] = x[index()];
}

template <bool FIXED>
__global__ void write_to_an_input(const float* x, float* out) {
  if (!FIXED) const_cast<float*>(x)[index()] = 0;
  out[index()] = x[index()];
}

template <bool FIXED>
__global__ void too_much_shared_memory(const float* x, float* out) {
  SHARED_ARRAY(float, values, kThreads);
  SHARED_ARRAY(double, more, FIXED ? 1024 : 32 * 1024);
  values[threadIdx.x] = x[index()];
  more[threadIdx.x] = x[index()];
  out[index()] = values[threadIdx.x] + static_cast<float>(more[threadIdx.x]);
}

__global__ void zero(float* out) { out[index()] = 0; }

__global__ void copy(const float* x, float* out) { out[index()] = x[index()]; }

}  // namespace bugs
