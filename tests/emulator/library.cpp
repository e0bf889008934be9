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

struct Limit {
  int64_t usual, now;
};

std::map<std::string, Limit>& limits() {
  static std::map<std::string, Limit> all;
  return all;
}

}  // namespace

const int64_t& limit(const char* name, int64_t value) {
  return limits().try_emplace(name, Limit{value, value}).first->second.now;
}

Launcher::Launcher(const char* name, void (*run)(Arguments&)) { launchers()[name] = run; }

}  // namespace emulator

#pragma GCC visibility push(default)
extern "C" {

using namespace emulator;

void emulator_reset() {
  free_buffers();
  forget_faults();
  forget_launches();
  trace::reset();
  for (auto& [name, limit] : limits()) limit.now = limit.usual;
}

// 0 if launches go by no limit of this name.
int emulator_limit(const char* name, int64_t value) {
  const auto found = limits().find(name);
  if (found == limits().end()) return 0;
  found->second.now = value;
  return 1;
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

// Lines of fields with tabs between them: faults, launches, then what the trace has counted. Valid
// until the next call.
const char* emulator_report() {
  static std::string text;
  std::ostringstream out;
  for (const Fault& f : faults()) {
    out << "fault\t" << f.what << '\t' << f.file << '\t' << f.line << '\t'
        << offset_in_module(f.code) << '\t' << f.block << '\t' << f.thread << '\t' << f.count
        << '\n';
  }
  for (const Launch& l : launches()) {
    out << "launch\t" << l.blocks << '\t' << l.threads << '\t' << l.shared_bytes << '\n';
  }
  text = out.str() + trace::report();
  return text.c_str();
}
}
#pragma GCC visibility pop
