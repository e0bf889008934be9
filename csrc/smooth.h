// exp and tanh of the smooth switches. A GPU has its own. The host's are calls, an element at a
// time; these have neither calls nor branches, so that loops over them become vector code. They err
// by less than 1 (exp) and 3 (tanh) units in the last place, also where the result is denormal.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "shapes.h"

namespace linscope::smooth {

#ifdef __CUDACC__

template <typename T>
LINSCOPE_FN T exp(T x) {
  return std::exp(x);
}

template <typename T>
LINSCOPE_FN T tanh(T x) {
  return std::tanh(x);
}

#else

template <typename T>
struct Format;
template <>
struct Format<float> {
  using Bits = uint32_t;
  using Integer = int32_t;
  static constexpr int digits = 23, bias = 127, terms = 8;
  static constexpr float zero_below = -104, infinite_above = 89;  // of exp
  static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
};
template <>
struct Format<double> {
  using Bits = uint64_t;
  using Integer = int64_t;
  static constexpr int digits = 52, bias = 1023, terms = 13;
  static constexpr double zero_below = -746, infinite_above = 710;
  static constexpr double ln2_high = 0x1.62e42fefa38p-1, ln2_low = 0x1.ef35793c7673p-45;
};

template <typename To, typename From>
LINSCOPE_FN To bits_of(From x) {
  To bits;
  static_assert(sizeof(bits) == sizeof(x));
  std::memcpy(&bits, &x, sizeof(x));
  return bits;
}

template <typename T>
LINSCOPE_FN T power_of_2(typename Format<T>::Integer n) {
  using F = Format<T>;
  return bits_of<T>(static_cast<typename F::Bits>(n + F::bias) << F::digits);
}

// e^x = 2^n (1 + part), |part| < 0.42.
template <typename T>
struct Exponential {
  using F = Format<T>;
  typename F::Integer n;
  T part;

  LINSCOPE_FN explicit Exponential(T x) {
    // Adding 1.5 2^digits leaves the nearest integer in the lowest bits.
    constexpr T round = T(3) * (typename F::Bits{1} << (F::digits - 1));
    const T rounded = std::fma(x, T(1.44269504088896340736), round), whole = rounded - round;
    n = static_cast<typename F::Integer>(bits_of<typename F::Bits>(rounded) -
                                         bits_of<typename F::Bits>(round));
    // ln2_high has zeros at its end: its product is exact.
    const T r = std::fma(-whole, F::ln2_low, std::fma(-whole, F::ln2_high, x));
    part = std::fma(series<2>(r), r * r, r);
  }

 private:
  static constexpr double factorial(int k) { return k < 2 ? 1 : k * factorial(k - 1); }

  // 1 / k! + r / (k + 1)! + ...
  template <int k>
  static LINSCOPE_FN T series(T r) {
    constexpr T first = static_cast<T>(1 / factorial(k));
    if constexpr (k == F::terms) {
      return first;
    } else {
      return std::fma(series<k + 1>(r), r, first);
    }
  }
};

// Comparisons are written so that NaN passes.
template <typename T>
LINSCOPE_FN T exp(T x) {
  using F = Format<T>;
  x = x < F::zero_below ? F::zero_below : x;
  x = x > F::infinite_above ? F::infinite_above : x;
  const Exponential<T> e(x);
  // In two steps: 2^n alone may be beyond the format.
  const typename F::Integer half = e.n >> 1;
  return (1 + e.part) * power_of_2<T>(half) * power_of_2<T>(e.n - half);
}

// (1 - e) / (1 + e), e = exp(-2 |x|), without cancellation near 0.
template <typename T>
LINSCOPE_FN T tanh(T x) {
  T y = -2 * std::abs(x);
  y = y < -80 ? -80 : y;  // 1 to all digits
  const Exponential<T> e(y);
  const T scale = power_of_2<T>(e.n), less_1 = std::fma(scale, e.part, scale - 1);
  return std::copysign(-less_1 / (2 + less_1), x);
}

#endif

}  // namespace linscope::smooth
