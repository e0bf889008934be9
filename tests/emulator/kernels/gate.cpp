#include "gate.cuh"

#include "call.h"

using namespace linscope;
using emulator::Arguments;
using emulator::Launcher;

namespace {

BatchShape batch_shape(Arguments& a) {
  const int64_t samples = a.integer(), references = a.integer();
  return {samples, references, a.integer()};
}

const Launcher gate_scope("gate_scope", [](Arguments& a) {
  a.dispatch([&]<typename T>() {
    const BatchShape shape = batch_shape(a);
    const T* x = a.buffer();
    T *y = a.buffer(), *gate = a.buffer();
    dispatch_gate(a.integer(), [&]<typename Gate>() {
      launch_gate_scope<Gate>(shape, x, y, gate, emulator::kStream);
    });
  });
});

const Launcher gate_frozen("gate_frozen", [](Arguments& a) {
  a.dispatch([&]<typename T>() {
    const BatchShape shape = batch_shape(a);
    const T *x = a.buffer(), *gate = a.buffer();
    T* y = a.buffer();
    launch_gate_frozen(shape, x, gate, a.real(), y, emulator::kStream);
  });
});

const Launcher gate_scope_backward("gate_scope_backward", [](Arguments& a) {
  a.dispatch([&]<typename T>() {
    const BatchShape shape = batch_shape(a);
    const T *grad_y = a.buffer(), *x = a.buffer();
    T* grad_x = a.buffer();
    dispatch_gate(a.integer(), [&]<typename Gate>() {
      launch_gate_scope_backward<Gate>(shape, grad_y, x, grad_x, emulator::kStream);
    });
  });
});

}  // namespace
