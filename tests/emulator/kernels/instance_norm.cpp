#include "instance_norm.cuh"

#include "call.h"

using namespace linscope;
using emulator::Arguments;
using emulator::Launcher;

namespace {

NormShape norm_shape(Arguments& a) {
  const int64_t samples = a.integer(), references = a.integer(), channels = a.integer(),
                area = a.integer();
  return {samples, references, channels, area, a.integer() != 0};
}

const Launcher instance_norm_scope("instance_norm_scope", [](Arguments& a) {
  const NormShape shape = norm_shape(a);
  a.dispatch([&]<typename T>() {
    const T* x = a.buffer();
    const wide_t<T>*weight = a.buffer(), *bias = a.buffer();
    T* y = a.buffer();
    wide_t<T>*mean = a.buffer(), *rstd = a.buffer();
    wide_t<T>* workspace = a.buffer();
    launch_instance_norm_scope(shape, x, weight, bias, a.real(), y, mean, rstd, workspace,
                               a.integer(), emulator::kStream);
  });
});

const Launcher instance_norm_frozen("instance_norm_frozen", [](Arguments& a) {
  const NormShape shape = norm_shape(a);
  a.dispatch([&]<typename T>() {
    const T* x = a.buffer();
    const wide_t<T>*mean = a.buffer(), *scale = a.buffer(), *shift = a.buffer();
    T* y = a.buffer();
    launch_instance_norm_frozen(shape, x, mean, scale, shift, y, emulator::kStream);
  });
});

const Launcher instance_norm_scope_backward("instance_norm_scope_backward", [](Arguments& a) {
  const NormShape shape = norm_shape(a);
  a.dispatch([&]<typename T>() {
    const T *grad_y = a.buffer(), *x = a.buffer();
    const wide_t<T>*mean = a.buffer(), *rstd = a.buffer(), *weight = a.buffer();
    T* grad_x = a.buffer();
    wide_t<T>*sum_g = a.buffer(), *sum_gx = a.buffer();
    wide_t<T>* workspace = a.buffer();
    launch_instance_norm_scope_backward(shape, grad_y, x, mean, rstd, weight, grad_x, sum_g, sum_gx,
                                        workspace, emulator::kStream);
  });
});

// How many numbers the workspaces of scope and backward hold.
const Launcher instance_norm_workspace("instance_norm_workspace", [](Arguments& a) {
  const NormShape shape = norm_shape(a);
  int64_t* result = a.buffer();
  a.dispatch([&]<typename T>() {
    result[0] = instance_norm_scope_workspace<T>(shape);
    result[1] = instance_norm_backward_workspace<T>(shape);
  });
});

}  // namespace
