// What kernels did wrong since the last reset, each fault once per place with how often it was
// seen.
#pragma once

#include <cstdint>
#include <source_location>
#include <string>
#include <vector>

namespace emulator {

struct Fault {
  std::string what, file;  // the file is empty where only the code's address is known
  unsigned line;
  uintptr_t code;
  int64_t block;
  unsigned thread;
  int64_t count;
};

const std::vector<Fault>& faults();
void forget_faults();

void fault(const char* what, std::source_location place);
void fault(const char* what, const void* code);

}  // namespace emulator
