#include "max_pool2d.cuh"

#include "call.h"

using namespace linscope;
using emulator::Arguments;
using emulator::Launcher;

namespace {

PoolShape pool_shape(Arguments& a) {
  const auto next = [&] { return static_cast<int>(a.integer()); };
  PoolShape shape;
  shape.samples = a.integer();
  shape.references = a.integer();
  shape.in.channels = shape.out.channels = next();
  shape.in.channels_last = shape.out.channels_last = next() != 0;
  for (int* size : {&shape.in.height, &shape.in.width, &shape.out.height, &shape.out.width,
                    &shape.window.kernel_h, &shape.window.kernel_w, &shape.window.stride_h,
                    &shape.window.stride_w, &shape.window.padding_h, &shape.window.padding_w,
                    &shape.window.dilation_h, &shape.window.dilation_w}) {
    *size = next();
  }
  return shape;
}

// Decisions are bytes for windows of up to 256 pixels.
template <typename F>
void dispatch_code(const PoolShape& shape, const F& f) {
  if (shape.window.kernel_h * shape.window.kernel_w <= 256) {
    f.template operator()<uint8_t>();
  } else {
    f.template operator()<int32_t>();
  }
}

const Launcher max_pool2d_scope("max_pool2d_scope", [](Arguments& a) {
  const PoolShape shape = pool_shape(a);
  a.dispatch([&]<typename T>() {
    dispatch_code(shape, [&]<typename code_t>() {
      const T* x = a.buffer();
      T* y = a.buffer();
      code_t* decision = a.buffer();
      launch_max_pool2d_scope(shape, x, y, decision, emulator::kStream);
    });
  });
});

const Launcher max_pool2d_frozen("max_pool2d_frozen", [](Arguments& a) {
  const PoolShape shape = pool_shape(a);
  a.dispatch([&]<typename T>() {
    dispatch_code(shape, [&]<typename code_t>() {
      const T* x = a.buffer();
      const code_t* decision = a.buffer();
      T* y = a.buffer();
      launch_max_pool2d_frozen(shape, x, decision, y, emulator::kStream);
    });
  });
});

const Launcher max_pool2d_frozen_transpose("max_pool2d_frozen_transpose", [](Arguments& a) {
  const PoolShape shape = pool_shape(a);
  a.dispatch([&]<typename T>() {
    dispatch_code(shape, [&]<typename code_t>() {
      const T* u = a.buffer();
      const code_t* decision = a.buffer();
      T* x = a.buffer();
      launch_max_pool2d_frozen_transpose(shape, u, decision, x, emulator::kStream);
    });
  });
});

}  // namespace
