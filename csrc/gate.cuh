// Scopes of smooth switches (sigmoid, tanh, SiLU, GELU): the decision is the gate's value, in x0's
// dtype.
#pragma once

#include "pointwise.cuh"

namespace linscope {

// y = gate x + shift; with shift 0 also the transpose.
template <typename T, int VEC>
struct FrozenGate {
  using Decision = Loaded<T, VEC>;
  static constexpr int packs = kPacks / 2;  // each with one of the gate

  const T* gate;
  wide_t<T> shift;
  int64_t sample_size;

  __device__ __forceinline__ Decision decision(int64_t, int64_t row, int64_t at) const {
    return load<VEC>(gate + row * sample_size + at);
  }

  __device__ __forceinline__ Pack<T, VEC> apply(const Pack<T, VEC>& a, Pack<T, VEC> pack) const {
#pragma unroll
    for (int k = 0; k < VEC; ++k) narrow(widen(a.v[k]) * widen(pack.v[k]) + shift, pack.v[k]);
    return pack;
  }
};

template <typename Gate, typename T, int VEC>
struct ScopedGate : FrozenGate<T, VEC> {
  using Decision = Pack<T, VEC>;

  T* kept;

  __device__ __forceinline__ Decision decide(const Pack<T, VEC>& x0, Pack<T, VEC>& y0) const {
    Decision a;
#pragma unroll
    for (int k = 0; k < VEC; ++k) {
      const wide_t<T> value = widen(x0.v[k]);
      narrow(Gate::value(value), y0.v[k]);
      narrow(Gate::gate(value), a.v[k]);
    }
    return a;
  }

  __device__ __forceinline__ void keep(const Place& place, const Decision& a) const {
    if (place.inside) store(kept + place.row * this->sample_size + place.at, a);
  }
};

// Full derivative: x0 moves its own output by h'(x0) and every probe's output by A'(x0) x1.
template <typename Gate, typename T, int VEC>
__global__ void __launch_bounds__(kBlock, kResidentWithSums<T>)
    gate_scope_backward_kernel(BatchShape shape, const T* __restrict__ grad_y,
                               const T* __restrict__ x, T* __restrict__ grad_x) {
  using wide = wide_t<T>;
  const int64_t stride = shape.references * shape.sample_size,
                end = shape.samples * shape.sample_size;
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x) * VEC;
  if (at >= stride) return;
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
}

// Calls f.operator()<VEC>() with the widest packs that lie in samples and addresses.
template <typename T, typename F>
void dispatch_gate_width(const BatchShape& shape, std::initializer_list<const void*> addresses,
                         const F& f) {
  dispatch_width<T>(
      [&]<int VEC>() {
        return shape.sample_size % VEC == 0 && aligned(VEC * sizeof(T), addresses);
      },
      f);
}

template <typename Gate, typename T>
void launch_gate_scope(const BatchShape& shape, const T* x, T* y, T* gate, cudaStream_t stream) {
  const auto run = [&]<int VEC>() {
    const wide_t<T> shift(Gate::shift);
    const ScopedGate<Gate, T, VEC> op{{gate, shift, shape.sample_size}, gate};
    launch_scope<VEC>(op, shape, x, y, stream);
  };
  dispatch_gate_width<T>(shape, {x, y, gate}, run);
}

template <typename T>
void launch_gate_frozen(const BatchShape& shape, const T* x, const T* gate, double shift, T* y,
                        cudaStream_t stream) {
  const auto run = [&]<int VEC>() {
    const FrozenGate<T, VEC> op{gate, static_cast<wide_t<T>>(shift), shape.sample_size};
    launch_frozen<VEC>(op, shape, x, y, stream);
  };
  dispatch_gate_width<T>(shape, {x, gate, y}, run);
}

template <typename Gate, typename T>
void launch_gate_scope_backward(const BatchShape& shape, const T* grad_y, const T* x, T* grad_x,
                                cudaStream_t stream) {
  const auto run = [&]<int VEC>() {
    const int64_t packs = shape.references * shape.sample_size / VEC;
    launch(gate_scope_backward_kernel<Gate, T, VEC>, blocks_for(packs), kBlock, 0, stream, shape,
           grad_y, x, grad_x);
  };
  dispatch_gate_width<T>(shape, {grad_y, x, grad_x}, run);
}

}  // namespace linscope
