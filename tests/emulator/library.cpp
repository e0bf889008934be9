// The library's functions for other languages.
#include <map>
#include <sstream>
#include <string>

#include "call.h"
#include "device_memory.h"
#include "faults.h"
#include "module.h"
#include "schedule.h"
#include "trace.h"

namespace emulator {
namespace {

std::map<std::string, void (*)(Arguments&)>& launchers() {
  static std::map<std::string, void (*)(Arguments&)> all;
  return all;
}

}  // namespace

Launcher::Launcher(const char* name, void (*run)(Arguments&)) { launchers()[name] = run; }

}  // namespace emulator

#pragma GCC visibility push(default)
extern "C" {

using namespace emulator;

void emulator_reset() {
  free_buffers();
  forget_faults();
  trace::reset();
}

void* emulator_allocate(const char* name, int role, size_t size, size_t offset) {
  return allocate(name, static_cast<Role>(role), size, offset);
}

void emulator_schedule(unsigned order, int64_t first_block, int64_t last_block) {
  schedule = {order, first_block, last_block};
}

// 0 if there is no launcher of this name.
int emulator_launch(const char* name, int dtype, const int64_t* integers, const double* reals,
                    void* const* buffers) {
  const auto found = launchers().find(name);
  if (found == launchers().end()) return 0;
  Arguments arguments(static_cast<Dtype>(dtype), integers, reals, buffers);
  found->second(arguments);
  check_surroundings();
  return 1;
}

// Lines of fields with tabs between them: faults, then what the trace has counted. Valid until the
// next call.
const char* emulator_report() {
  static std::string text;
  std::ostringstream out;
  for (const Fault& f : faults()) {
    out << "fault\t" << f.what << '\t' << f.file << '\t' << f.line << '\t'
        << offset_in_module(f.code) << '\t' << f.block << '\t' << f.thread << '\t' << f.count
        << '\n';
  }
  text = out.str() + trace::report();
  return text.c_str();
}
}
#pragma GCC visibility pop
