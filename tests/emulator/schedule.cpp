#include "schedule.h"

#include <algorithm>
#include <numeric>
#include <random>

namespace emulator {

Schedule schedule;

std::vector<int64_t> ordering(int64_t first, int64_t last, unsigned order) {
  std::vector<int64_t> numbers(std::max<int64_t>(last - first, 0));
  std::iota(numbers.begin(), numbers.end(), first);
  if (order == 1) {
    std::reverse(numbers.begin(), numbers.end());
  } else if (order > 1) {
    std::shuffle(numbers.begin(), numbers.end(), std::minstd_rand(order));
  }
  return numbers;
}

}  // namespace emulator
