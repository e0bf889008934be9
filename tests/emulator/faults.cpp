#include "faults.h"

#include "machine.h"

namespace emulator {
namespace {

std::vector<Fault> seen;

void add(const char* what, const char* file, unsigned line, uintptr_t code) {
  for (Fault& f : seen) {
    if (f.what == what && f.file == file && f.line == line && f.code == code) {
      ++f.count;
      return;
    }
  }
  seen.push_back({what, file, line, code, current ? current->block_number : -1,
                  current ? current->number : 0, 1});
}

}  // namespace

const std::vector<Fault>& faults() { return seen; }
void forget_faults() { seen.clear(); }

void fault(const char* what, std::source_location place) {
  add(what, place.file_name(), place.line(), 0);
}
void fault(const char* what, const void* code) {
  add(what, "", 0, reinterpret_cast<uintptr_t>(code));
}

}  // namespace emulator
