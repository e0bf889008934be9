// Scopes of smooth switches (sigmoid, tanh, SiLU, GELU): the decision is the gate's value, in x0's
// dtype.
#pragma once

#include "launch.h"
#include "scopes.h"

namespace linscope {

// VEC neighbours of the references per step. Probe p of the element at `at` lies p * references *
// sample_size further.
template <int VEC, typename F>
__device__ __forceinline__ void for_references(const BatchShape& shape, const F& f) {
  const int64_t items = shape.references * shape.sample_size / VEC;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t item = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; item < items;
       item += step) {
    f(item * VEC);
  }
}

template <typename Gate, typename T, int VEC>
__global__ void __launch_bounds__(kBlock, kResident)
    gate_scope_kernel(BatchShape shape, const T* __restrict__ x, T* __restrict__ y,
                      T* __restrict__ gate) {
  using wide = wide_t<T>;
  const int64_t stride = shape.references * shape.sample_size,
                end = shape.samples * shape.sample_size;
  for_references<VEC>(shape, [&](int64_t at) {
    Pack<T, VEC> in = load<VEC>(x + at), out, a;
#pragma unroll
    for (int k = 0; k < VEC; ++k) {
      const wide value = widen(in.v[k]);
      narrow(Gate::value(value), out.v[k]);
      narrow(Gate::gate(value), a.v[k]);
    }
    store(y + at, out);
    store(gate + at, a);
    for (int64_t i = at + stride; i < end; i += stride) {
      in = load<VEC>(x + i);
#pragma unroll
      for (int k = 0; k < VEC; ++k)
        narrow(widen(a.v[k]) * widen(in.v[k]) + wide(Gate::shift), out.v[k]);
      store(y + i, out);
    }
  });
}

// y = gate x + shift; with shift 0 also the transpose.
template <typename T, int VEC>
__global__ void __launch_bounds__(kBlock, kResident)
    gate_frozen_kernel(BatchShape shape, const T* __restrict__ x, const T* __restrict__ gate,
                       wide_t<T> shift, T* __restrict__ y) {
  const int64_t stride = shape.references * shape.sample_size,
                end = shape.samples * shape.sample_size;
  for_references<VEC>(shape, [&](int64_t at) {
    const Pack<T, VEC> a = load<VEC>(gate + at);
    for (int64_t i = at; i < end; i += stride) {
      const Pack<T, VEC> in = load<VEC>(x + i);
      Pack<T, VEC> out;
#pragma unroll
      for (int k = 0; k < VEC; ++k) narrow(widen(a.v[k]) * widen(in.v[k]) + shift, out.v[k]);
      store(y + i, out);
    }
  });
}

// Full derivative: x0 moves its own output by h'(x0) and every probe's output by A'(x0) x1.
template <typename Gate, typename T, int VEC>
__global__ void __launch_bounds__(kBlock, kResidentWithSums<T>)
    gate_scope_backward_kernel(BatchShape shape, const T* __restrict__ grad_y,
                               const T* __restrict__ x, T* __restrict__ grad_x) {
  using wide = wide_t<T>;
  const int64_t stride = shape.references * shape.sample_size,
                end = shape.samples * shape.sample_size;
  for_references<VEC>(shape, [&](int64_t at) {
    const Pack<T, VEC> x0 = load<VEC>(x + at), g0 = load<VEC>(grad_y + at);
    wide through_gate[VEC] = {};
    for (int64_t i = at + stride; i < end; i += stride) {
      const Pack<T, VEC> probe = load<VEC>(x + i), g = load<VEC>(grad_y + i);
      Pack<T, VEC> out;
#pragma unroll
      for (int k = 0; k < VEC; ++k) {
        through_gate[k] += widen(probe.v[k]) * widen(g.v[k]);
        narrow(Gate::gate(widen(x0.v[k])) * widen(g.v[k]), out.v[k]);
      }
      store(grad_x + i, out);
    }
    Pack<T, VEC> out;
#pragma unroll
    for (int k = 0; k < VEC; ++k) {
      const wide value = widen(x0.v[k]);
      narrow(Gate::value_slope(value) * widen(g0.v[k]) + Gate::gate_slope(value) * through_gate[k],
             out.v[k]);
    }
    store(grad_x + at, out);
  });
}

template <typename T, typename F>
void launch_gate(const BatchShape& shape, bool all_aligned, const F& f) {
  constexpr int vec = widest<T>();
  const int64_t elements = shape.references * shape.sample_size;
  if (all_aligned && elements % vec == 0) {
    f.template operator()<vec>(blocks_for(elements / vec));
  } else {
    f.template operator()<1>(blocks_for(elements));
  }
}

template <typename Gate, typename T>
void launch_gate_scope(const BatchShape& shape, const T* x, T* y, T* gate, cudaStream_t stream) {
  launch_gate<T>(shape, aligned(x) && aligned(y) && aligned(gate), [&]<int vec>(unsigned blocks) {
    launch(gate_scope_kernel<Gate, T, vec>, blocks, kBlock, 0, stream, shape, x, y, gate);
  });
}

template <typename T>
void launch_gate_frozen(const BatchShape& shape, const T* x, const T* gate, double shift, T* y,
                        cudaStream_t stream) {
  launch_gate<T>(shape, aligned(x) && aligned(y) && aligned(gate), [&]<int vec>(unsigned blocks) {
    launch(gate_frozen_kernel<T, vec>, blocks, kBlock, 0, stream, shape, x, gate, shift, y);
  });
}

template <typename Gate, typename T>
void launch_gate_scope_backward(const BatchShape& shape, const T* grad_y, const T* x, T* grad_x,
                                cudaStream_t stream) {
  launch_gate<T>(shape, aligned(grad_y) && aligned(x) && aligned(grad_x),
                 [&]<int vec>(unsigned blocks) {
                   launch(gate_scope_backward_kernel<Gate, T, vec>, blocks, kBlock, 0, stream,
                          shape, grad_y, x, grad_x);
                 });
}

}  // namespace linscope
