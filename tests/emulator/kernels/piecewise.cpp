#include "piecewise.cuh"

#include "call.h"

using namespace linscope;
using emulator::Arguments;
using emulator::Launcher;

namespace {

PackedShape packed_shape(Arguments& a, int bits) {
  const int64_t samples = a.integer(), references = a.integer(), sample_size = a.integer();
  return {{samples, references, sample_size}, (sample_size * bits + 7) / 8};
}

template <typename Unit, typename T>
void scope(Arguments& a, const Unit& unit) {
  const PackedShape shape = packed_shape(a, Unit::bits);
  const T* x = a.buffer();
  T* y = a.buffer();
  uint8_t* decision = a.buffer();
  launch_piecewise_scope(unit, shape, x, y, decision, emulator::kStream);
}

template <typename Unit, typename T>
void frozen(Arguments& a, const Unit& unit) {
  const PackedShape shape = packed_shape(a, Unit::bits);
  const T* x = a.buffer();
  const uint8_t* decision = a.buffer();
  T* y = a.buffer();
  launch_piecewise_frozen(unit, shape, x, decision, y, emulator::kStream);
}

template <typename Unit, typename T>
void frozen_in_place(Arguments& a, const Unit& unit) {
  const PackedShape shape = packed_shape(a, Unit::bits);
  T* x = a.buffer();
  const uint8_t* decision = a.buffer();
  launch_piecewise_frozen(unit, shape, static_cast<const T*>(x), decision, x, emulator::kStream);
}

template <typename T>
Relu<T> relu(Arguments& a) {
  return {static_cast<T>(a.real())};
}

template <typename T>
Clamp<T> clamp(Arguments& a) {
  const T min = static_cast<T>(a.real());
  return {min, static_cast<T>(a.real())};
}

const Launcher relu_scope("relu_scope", [](Arguments& a) {
  a.dispatch([&]<typename T>() { scope<Relu<wide_t<T>>, T>(a, relu<wide_t<T>>(a)); });
});

const Launcher relu_frozen("relu_frozen", [](Arguments& a) {
  a.dispatch([&]<typename T>() { frozen<Relu<wide_t<T>>, T>(a, relu<wide_t<T>>(a)); });
});

const Launcher relu_frozen_("relu_frozen_", [](Arguments& a) {
  a.dispatch([&]<typename T>() { frozen_in_place<Relu<wide_t<T>>, T>(a, relu<wide_t<T>>(a)); });
});

const Launcher clamp_scope("clamp_scope", [](Arguments& a) {
  a.dispatch([&]<typename T>() { scope<Clamp<wide_t<T>>, T>(a, clamp<wide_t<T>>(a)); });
});

const Launcher clamp_frozen("clamp_frozen", [](Arguments& a) {
  a.dispatch([&]<typename T>() { frozen<Clamp<wide_t<T>>, T>(a, clamp<wide_t<T>>(a)); });
});

const Launcher clamp_frozen_("clamp_frozen_", [](Arguments& a) {
  a.dispatch([&]<typename T>() { frozen_in_place<Clamp<wide_t<T>>, T>(a, clamp<wide_t<T>>(a)); });
});

}  // namespace
