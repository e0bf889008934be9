#include "fiber.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace {

// The scheduler's side of a switch. AddressSanitizer must be told of every change of stack.
struct Scheduler {
  const void* stack = nullptr;
  size_t size = 0;
  void* fake_stack = nullptr;
#ifdef EMULATOR_UCONTEXT
  ucontext_t context;
#else
  void* stack_pointer = nullptr;
#endif
} scheduler;

void starting(void** fake_stack, const void* stack, size_t size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(fake_stack, stack, size);
#else
  (void)fake_stack, (void)stack, (void)size;
#endif
}

void finished(void* fake_stack, const void** stack, size_t* size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack, stack, size);
#else
  (void)fake_stack, (void)stack, (void)size;
#endif
}

}  // namespace

#ifndef EMULATOR_UCONTEXT
// Pushes the registers that a call must keep, stores the stack's address, and takes up another
// stack where it was left.
extern "C" void emulator_switch(void** save, void* load);
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch, @function
emulator_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size emulator_switch, .-emulator_switch
)");
#endif

namespace emulator {

void Fiber::prepare(char* stack, size_t size, void (*entry)()) {
  stack_ = stack;
  size_ = size;
  fake_stack_ = nullptr;
#ifdef EMULATOR_UCONTEXT
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack;
  context_.uc_stack.ss_size = size;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
#else
  // As if `entry` had been called: a null return address above it, the stack 16-byte aligned.
  void** top = reinterpret_cast<void**>(stack + size - 64);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  stack_pointer_ = top;
#endif
}

void Fiber::enter() {
  starting(&scheduler.fake_stack, stack_, size_);
#ifdef EMULATOR_UCONTEXT
  swapcontext(&scheduler.context, &context_);
#else
  emulator_switch(&scheduler.stack_pointer, stack_pointer_);
#endif
  finished(scheduler.fake_stack, nullptr, nullptr);
}

void Fiber::leave() {
  starting(&fake_stack_, scheduler.stack, scheduler.size);
#ifdef EMULATOR_UCONTEXT
  swapcontext(&context_, &scheduler.context);
#else
  emulator_switch(&stack_pointer_, scheduler.stack_pointer);
#endif
  finished(fake_stack_, &scheduler.stack, &scheduler.size);
}

void Fiber::arrived() { finished(nullptr, &scheduler.stack, &scheduler.size); }

}  // namespace emulator
