// The arithmetic of every scope, for host and device: decide on a reference x0 and apply the
// decision to a probe. CPU and CUDA files only loop over these. Applied with its constants set to
// 0, a decision gives its linear part, which is diagonal, and so its own transpose, for all scopes
// but max pooling.
#pragma once

#include <cmath>

#include "shapes.h"
#include "smooth.h"

namespace linscope {

// float16 and bfloat16 are computed in float32.
template <typename T>
struct WideOf {
  using type = float;
};
template <>
struct WideOf<double> {
  using type = double;
};
template <typename T>
using wide_t = typename WideOf<T>::type;

// ---- Piecewise-linear units: the decision is which piece of the graph x0 is on, in `bits` bits.
// ----

// ReLU and LeakyReLU. NaN counts as open: it passes through forward and backward, as in torch. A
// closed ReLU selects 0; multiplying by 0 would turn an infinite probe into NaN.
template <typename T>
struct Relu {
  static constexpr int bits = 1;
  T negative_slope;

  LINSCOPE_FN unsigned piece(T x) const { return !(x <= T(0)); }
  LINSCOPE_FN T apply(unsigned piece, T x) const {
    return piece ? x : negative_slope == T(0) ? T(0) : negative_slope * x;
  }
};

// ReLU6, hardtanh, clamp: 0 below, 1 inside, 2 above. A saturated probe is the constant c, not 0.
template <typename T>
struct Clamp {
  static constexpr int bits = 2;
  T min, max;

  LINSCOPE_FN unsigned piece(T x) const { return x <= min ? 0u : x >= max ? 2u : 1u; }
  LINSCOPE_FN T apply(unsigned piece, T x) const { return piece == 1 ? x : piece == 0 ? min : max; }
};

// ---- Smooth switches: the decision is the gate's value A(x0); y = A(x0) x + shift. ----

// tanh(z) / z and its derivative. Near 0 the derivative is summed as a series of sinh(2z) - 2z,
// since the quotient's numerator cancels there. Both are computed: a branch would keep loops from
// becoming vector code.
template <typename T>
LINSCOPE_FN T tanh_over(T z) {
  return z == T(0) ? T(1) : smooth::tanh(z) / z;
}

template <typename T>
LINSCOPE_FN T tanh_over_slope(T z) {
  const T t = smooth::tanh(z), w = T(4) * z * z, slope = T(1) - t * t;
  T tail = 1;
  tail = 1 + w * T(1. / 210) * tail;
  tail = 1 + w * T(1. / 156) * tail;
  tail = 1 + w * T(1. / 110) * tail;
  tail = 1 + w * T(1. / 72) * tail;
  tail = 1 + w * T(1. / 42) * tail;
  tail = 1 + w * T(1. / 20) * tail;
  return w < T(1) ? T(-2) / T(3) * z * tail * slope : (slope * z - t) / (z * z);
}

template <typename T>
LINSCOPE_FN T sigmoid(T x) {
  return T(1) / (T(1) + smooth::exp(-x));
}

template <typename T>
LINSCOPE_FN T sigmoid_slope(T x) {
  return sigmoid(x) * sigmoid(-x);
}

// value = h(x0), gate = A(x0), and their derivatives with respect to x0.
// The secant of sigmoid through h(0) = 1/2, in the tanh form, which keeps all digits near 0.
struct SigmoidGate {
  static constexpr double shift = 0.5;
  template <typename T>
  static LINSCOPE_FN T value(T x) {
    return sigmoid(x);
  }
  template <typename T>
  static LINSCOPE_FN T gate(T x) {
    return tanh_over(x / 2) / 4;
  }
  template <typename T>
  static LINSCOPE_FN T value_slope(T x) {
    return sigmoid_slope(x);
  }
  template <typename T>
  static LINSCOPE_FN T gate_slope(T x) {
    return tanh_over_slope(x / 2) / 8;
  }
};

// The paper's mask h(x)/x, infinite at 0.
struct SigmoidMaskGate {
  static constexpr double shift = 0;
  template <typename T>
  static LINSCOPE_FN T value(T x) {
    return sigmoid(x);
  }
  template <typename T>
  static LINSCOPE_FN T gate(T x) {
    return sigmoid(x) / x;
  }
  template <typename T>
  static LINSCOPE_FN T value_slope(T x) {
    return sigmoid_slope(x);
  }
  template <typename T>
  static LINSCOPE_FN T gate_slope(T x) {
    return (sigmoid_slope(x) * x - sigmoid(x)) / (x * x);
  }
};

struct TanhGate {
  static constexpr double shift = 0;
  template <typename T>
  static LINSCOPE_FN T value(T x) {
    return smooth::tanh(x);
  }
  template <typename T>
  static LINSCOPE_FN T gate(T x) {
    return tanh_over(x);
  }
  template <typename T>
  static LINSCOPE_FN T value_slope(T x) {
    return T(1) - smooth::tanh(x) * smooth::tanh(x);
  }
  template <typename T>
  static LINSCOPE_FN T gate_slope(T x) {
    return tanh_over_slope(x);
  }
};

// h(x) = x A(x): the unit itself says what its gate is.
template <typename Gate>
struct SelfGated {
  static constexpr double shift = 0;
  template <typename T>
  static LINSCOPE_FN T value(T x) {
    return x * Gate::gate(x);
  }
  template <typename T>
  static LINSCOPE_FN T gate(T x) {
    return Gate::gate(x);
  }
  template <typename T>
  static LINSCOPE_FN T value_slope(T x) {
    return Gate::gate(x) + x * Gate::gate_slope(x);
  }
  template <typename T>
  static LINSCOPE_FN T gate_slope(T x) {
    return Gate::gate_slope(x);
  }
};

struct Logistic {
  template <typename T>
  static LINSCOPE_FN T gate(T x) {
    return sigmoid(x);
  }
  template <typename T>
  static LINSCOPE_FN T gate_slope(T x) {
    return sigmoid_slope(x);
  }
};

struct NormalCdf {
  template <typename T>
  static LINSCOPE_FN T gate(T x) {
    return T(0.5) * std::erfc(-x * T(0.70710678118654752440));
  }
  template <typename T>
  static LINSCOPE_FN T gate_slope(T x) {
    return T(0.39894228040143267794) * smooth::exp(-x * x / 2);
  }
};

// GELU's tanh approximation of the normal distribution function.
struct NormalCdfTanh {
  template <typename T>
  static LINSCOPE_FN T inner(T x) {
    return T(0.79788456080286535588) * (x + T(0.044715) * x * x * x);
  }
  template <typename T>
  static LINSCOPE_FN T gate(T x) {
    return T(0.5) * (T(1) + smooth::tanh(inner(x)));
  }
  template <typename T>
  static LINSCOPE_FN T gate_slope(T x) {
    const T t = smooth::tanh(inner(x));
    return T(0.5) * (T(1) - t * t) * T(0.79788456080286535588) * (T(1) + T(0.134145) * x * x);
  }
};

using SiluGate = SelfGated<Logistic>;
using GeluGate = SelfGated<NormalCdf>;
using GeluTanhGate = SelfGated<NormalCdfTanh>;

// Calls f.operator()<Gate>() for a kind's number, in the order of linscope_cuda.ops.GATES. False if
// there is none.
template <typename F>
bool dispatch_gate(int64_t kind, const F& f) {
  switch (kind) {
    case 0:
      f.template operator()<SigmoidGate>();
      return true;
    case 1:
      f.template operator()<TanhGate>();
      return true;
    case 2:
      f.template operator()<SiluGate>();
      return true;
    case 3:
      f.template operator()<GeluGate>();
      return true;
    case 4:
      f.template operator()<GeluTanhGate>();
      return true;
    case 5:
      f.template operator()<SigmoidMaskGate>();
      return true;
    default:
      return false;
  }
}

// ---- Max pooling: the decision is the winner's number within its window. ----

struct Window {
  int kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;

  // Taps [begin, end) of a window at `corner` that fall on one of `size` pixels.
  struct Taps {
    int begin, end;
  };
  static LINSCOPE_FN Taps taps(int corner, int kernel, int dilation, int size) {
    const int behind = corner + (kernel - 1) * dilation - (size - 1);
    return {corner < 0 ? (-corner + dilation - 1) / dilation : 0,
            behind > 0 ? kernel - (behind + dilation - 1) / dilation : kernel};
  }

  // Taps of an output's window that fall on the image.
  LINSCOPE_FN Taps rows(int out_row, const Planes& in) const {
    return taps(out_row * stride_h - padding_h, kernel_h, dilation_h, in.height);
  }
  LINSCOPE_FN Taps columns(int out_column, const Planes& in) const {
    return taps(out_column * stride_w - padding_w, kernel_w, dilation_w, in.width);
  }

  // The first of equal values wins, the last NaN if there is any, as in torch.
  template <typename T>
  static LINSCOPE_FN bool wins(T value, T best) {
    return value > best || value != value;
  }

  // Where in its plane the winner of an output lies. Negative for a number that is no tap of the
  // window, or a tap that falls beside the image: such an output is 0, and transposed it goes to no
  // pixel.
  LINSCOPE_FN int64_t source(int winner, const Planes& in, int out_row, int out_column) const {
    if (winner < 0 || winner >= kernel_h * kernel_w) return -1;
    const int row = out_row * stride_h - padding_h + winner / kernel_w * dilation_h;
    const int column = out_column * stride_w - padding_w + winner % kernel_w * dilation_w;
    if (row < 0 || row >= in.height || column < 0 || column >= in.width) return -1;
    return in.pixel(row, column);
  }

  // One pixel of the transposed pool: the sum of all outputs that this pixel won. A gather, so no
  // atomics.
  template <typename T, typename code_t, typename Widen>
  LINSCOPE_FN auto gather(const T* u, const code_t* decision, const Planes& out, int row,
                          int column, const Widen& widen) const {
    decltype(widen(*u)) sum = 0;
    const int bottom = row + padding_h, right = column + padding_w;
    // Without dilation only every stride-th tap can have come here.
    const int step_h = dilation_h == 1 ? stride_h : 1, step_w = dilation_w == 1 ? stride_w : 1;
    for (int i = bottom % step_h; i < kernel_h; i += step_h) {
      const int y = bottom - i * dilation_h;
      if (y < 0 || y % stride_h != 0 || y / stride_h >= out.height) continue;
      for (int j = right % step_w; j < kernel_w; j += step_w) {
        const int x = right - j * dilation_w;
        if (x < 0 || x % stride_w != 0 || x / stride_w >= out.width) continue;
        const int64_t at = out.pixel(y / stride_h, x / stride_w);
        if (decision[at] == i * kernel_w + j) sum += widen(u[at]);
      }
    }
    return sum;
  }
};

struct PoolShape {
  int64_t samples, references;
  Planes in, out;
  Window window;
};

// ---- Normalisation: the decision is mean and standard deviation of x0's plane. ----

// Count, mean and sum of squared deviations; parts are merged by Chan's update, which does not
// cancel.
template <typename T>
struct Moments {
  T count = T(0), mean = T(0), squares = T(0);

  LINSCOPE_FN void merge(const Moments& other) {
    if (other.count == T(0)) return;
    const T total = count + other.count, delta = other.mean - mean;
    const T share = count == other.count ? T(0.5) : other.count / total;
    mean += delta * share;
    squares += other.squares + delta * delta * count * share;
    count = total;
  }
  // Biased variance, eps inside the square root.
  LINSCOPE_FN T inverse_deviation(T eps) const { return T(1) / std::sqrt(squares / count + eps); }
};

template <typename T>
struct Normalize {
  T mean, scale, shift;

  LINSCOPE_FN T apply(T x) const { return (x - mean) * scale + shift; }
};

// Sums over a reference and its probes of the gradient g and of g times the normalised value: the
// gradients of the shift and of the weight, and what x0 does to every sample through its mean and
// deviation.
template <typename T>
struct GradientSums {
  T g = T(0), gx = T(0);

  LINSCOPE_FN void merge(const GradientSums& other) {
    g += other.g;
    gx += other.gx;
  }
  // What x0's gradient lacks, of which `normalized` is (x0 - mean) rstd: it is scale * (g - this),
  // and a probe's scale * g.
  LINSCOPE_FN T through_x0(T normalized, T count) const { return (g + normalized * gx) / count; }
};

}  // namespace linscope
