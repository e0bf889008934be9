// Division by a number that is known before the kernel starts.
#pragma once

#include "shapes.h"

namespace linscope {

// Below 2^31 a division is a multiplication and a shift (Granlund and Montgomery 1994).
class Divisor {
 public:
  Divisor() = default;
  explicit Divisor(int64_t divisor) : divisor_(divisor) {
    while (shift_ < 31 && int64_t{1} << shift_ < divisor) ++shift_;
    if (divisor < kLimit) {
      const uint64_t rest = (uint64_t{1} << shift_) - static_cast<uint64_t>(divisor);
      factor_ = static_cast<uint32_t>((rest << 32) / static_cast<uint64_t>(divisor) + 1);
    }
  }

  struct Result {
    int64_t quotient, remainder;
  };

  LINSCOPE_FN Result split(int64_t n) const {
    if ((n | divisor_) >= kLimit) return {n / divisor_, n % divisor_};
    const auto low = static_cast<uint32_t>(n);
    const auto high = static_cast<uint32_t>(static_cast<uint64_t>(low) * factor_ >> 32);
    const uint32_t quotient = (high + low) >> shift_;
    return {quotient, low - quotient * static_cast<uint32_t>(divisor_)};
  }
  LINSCOPE_FN int64_t divisor() const { return divisor_; }
  LINSCOPE_FN int64_t divide(int64_t n) const { return split(n).quotient; }
  LINSCOPE_FN int64_t modulo(int64_t n) const { return split(n).remainder; }

 private:
  static constexpr int64_t kLimit = int64_t{1} << 31;

  int64_t divisor_ = 1;
  uint32_t factor_ = 1;
  int shift_ = 0;
};

}  // namespace linscope
