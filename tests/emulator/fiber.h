// A flow of control with a stack of its own, entered and left by hand.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) || defined(EMULATOR_PORTABLE)
#define EMULATOR_UCONTEXT
#include <ucontext.h>
#endif

namespace emulator {

class Fiber {
 public:
  // The next enter() begins `entry` on a fresh stack; whatever the fiber did before is forgotten.
  // `entry` must not return: a fiber ends by leaving and not being entered again.
  void prepare(char* stack, size_t size, void (*entry)());

  // From the scheduler into the fiber, until the fiber leaves.
  void enter();
  // From the fiber back to the scheduler.
  void leave();
  // The first thing that an entry does.
  static void arrived();

 private:
  char* stack_ = nullptr;
  size_t size_ = 0;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
#ifdef EMULATOR_UCONTEXT
  ucontext_t context_;
#else
  void* stack_pointer_ = nullptr;
#endif
};

}  // namespace emulator
