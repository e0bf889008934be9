// What the kernels need of the CUDA language beyond its keywords, so that the same source can also
// be run on a CPU.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#define SHARED_ARRAY(T, name, n) __shared__ T name[n]
#define SHARED_DYN(T, name)                                       \
  extern __shared__ __align__(16) unsigned char dynamic_shared[]; \
  T* name = reinterpret_cast<T*>(dynamic_shared)

// A number that launches go by, for the sake of speed alone: tests without a GPU lower it, so that
// small tensors meet it.
#define LAUNCH_LIMIT(name, value) constexpr int64_t name = value

namespace linscope {

template <typename... P, typename... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
            A... args) {
  // 48 KiB need no leave, but what a kernel declares itself counts towards them.
  constexpr size_t surely_allowed = 32 * 1024;
  if (shared > surely_allowed) {
    const cudaError_t refused = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
    if (refused != cudaSuccess) {
      cudaGetLastError();  // told here: the next launch shall not be blamed for it
      throw std::runtime_error("linscope: a kernel wants " + std::to_string(shared) +
                               " bytes of shared memory for a block, which CUDA refuses: " +
                               cudaGetErrorString(refused));
    }
  }
  kernel<<<grid, block, shared, stream>>>(static_cast<P>(args)...);
}

}  // namespace linscope
#else
#include "emulator.h"
#endif

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

namespace linscope {

constexpr unsigned kBlock = 256;

// Blocks that a multiprocessor must have registers for, as every kernel states in its launch bound.
// 4 are 1024 threads, all that sm_75 takes and half of what sm_90 takes: enough loads under way to
// hide memory's latency. Without the bound, ptxas spills for the sake of more.
constexpr unsigned kResident = 4;

// Turing makes bfloat16 of two registers, and has 64 KiB of shared memory.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool kTuring = true;
#else
constexpr bool kTuring = false;
#endif

// The same for kernels that carry sums from load to load, two registers each in float64.
template <typename T>
constexpr unsigned kResidentWithSums = sizeof(T) == 8 ? 2 : 3;

// A thread for each item. A grid takes 2^31 blocks: no tensor has so many elements.
inline unsigned blocks_for(int64_t items) {
  return static_cast<unsigned>((items + kBlock - 1) / kBlock);
}

template <typename T>
__device__ __forceinline__ float widen(T x) {
  return static_cast<float>(x);
}
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ __forceinline__ void narrow(double x, double& y) { y = x; }
__device__ __forceinline__ void narrow(float x, float& y) { y = x; }
__device__ __forceinline__ void narrow(float x, __half& y) { y = __float2half_rn(x); }
__device__ __forceinline__ void narrow(float x, __nv_bfloat16& y) { y = __float2bfloat16_rn(x); }

// VEC neighbours, moved in one access of 16 bytes or fewer.
template <typename T, int VEC>
struct alignas(sizeof(T) * VEC) Pack {
  T v[VEC];
};

// The bytes of a pack as one number.
template <size_t bytes>
struct WordOf {};
template <>
struct WordOf<16> {
  using type = uint4;
};
template <>
struct WordOf<8> {
  using type = uint2;
};
template <>
struct WordOf<4> {
  using type = uint32_t;
};
template <>
struct WordOf<2> {
  using type = uint16_t;
};
template <>
struct WordOf<1> {
  using type = uint8_t;
};

// A pack on its way: until it is used as a pack, nvcc does not take it apart, which would take
// twice the registers for elements of two bytes.
template <typename T, int VEC>
struct Loaded {
  typename WordOf<sizeof(T) * VEC>::type word;

  __device__ __forceinline__ operator Pack<T, VEC>() const {
    return __builtin_bit_cast(Pack<T, VEC>, word);
  }
};

template <int VEC, typename T>
__device__ __forceinline__ Loaded<T, VEC> load(const T* p) {
  return {*reinterpret_cast<const typename WordOf<sizeof(T) * VEC>::type*>(p)};
}

// To global memory. An assignment nvcc takes apart, and in unrolled loops does not always put
// together again: it stored one element at a time.
template <typename T, int VEC>
__device__ __forceinline__ void store(T* p, const Pack<T, VEC>& pack) {
  using word_t = typename WordOf<sizeof(pack)>::type;
  __stwb(reinterpret_cast<word_t*>(p), __builtin_bit_cast(word_t, pack));
}

template <typename T, int VEC>
__device__ __forceinline__ void store_shared(T* p, const Pack<T, VEC>& pack) {
  *reinterpret_cast<Pack<T, VEC>*>(p) = pack;
}

inline bool aligned(size_t bytes, std::initializer_list<const void*> addresses) {
  return std::all_of(addresses.begin(), addresses.end(),
                     [&](const void* p) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; });
}

// Calls f.operator()<VEC>() for the widest pack of at most 16 bytes that
// `fits.operator()<VEC>()`; one element always does.
template <typename T, int VEC = 16 / sizeof(T), typename Fits, typename F>
void dispatch_width(const Fits& fits, const F& f) {
  if constexpr (VEC == 1) {
    f.template operator()<1>();
  } else if (fits.template operator()<VEC>()) {
    f.template operator()<VEC>();
  } else {
    dispatch_width<T, VEC / 2>(fits, f);
  }
}

}  // namespace linscope
