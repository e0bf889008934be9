// relu_scope, relu_frozen, clamp_scope, clamp_frozen, and the frozen ones in place: check, guard,
// allocate, run. `Backend` runs the loops.
#pragma once

#include "checks.h"

namespace linscope {

template <typename Backend>
struct PiecewiseOps {
  static PackedShape packed(const BatchShape& shape, int bits) {
    return {shape, (shape.sample_size * bits + 7) / 8};
  }

  template <template <typename> typename Unit, typename... Args>
  static std::tuple<Tensor, Tensor> scope(const char* op, const Tensor& x, int64_t references,
                                          bool channels_last, Args... args) {
    const PackedShape shape = packed(scope_shape(x, references, op), Unit<float>::bits);
    check_format(op, x, channels_last);
    const typename Backend::Guard guard(x);
    const Tensor in = dense(x, channels_last);
    Tensor y = empty_as(x, channels_last);
    Tensor decision = empty({references, shape.row_bytes}, x, ScalarType::Byte);
    if (x.numel() == 0) return {y, decision};
    dispatch_floating(x.scalar_type(), op, [&]<typename scalar_t>() {
      Backend::piecewise_scope(Unit<wide_t<scalar_t>>{static_cast<wide_t<scalar_t>>(args)...},
                               shape, in.const_data_ptr<scalar_t>(), y.mutable_data_ptr<scalar_t>(),
                               decision.mutable_data_ptr<uint8_t>(), guard);
    });
    return {y, decision};
  }

  static PackedShape frozen_shape(const char* op, const Tensor& x, const Tensor& decision, int bits,
                                  bool channels_last) {
    const PackedShape shape = packed(batch_shape(x, rows_of(decision, op), op), bits);
    check_tensor(op, x, "decision", decision, {shape.references, shape.row_bytes},
                 ScalarType::Byte);
    check_format(op, x, channels_last);
    return shape;
  }

  // y may be x.
  template <template <typename> typename Unit, typename... Args>
  static void apply(const char* op, const PackedShape& shape, const Tensor& x,
                    const Tensor& decision, const Tensor& y, Args... args) {
    if (x.numel() == 0) return;
    const typename Backend::Guard guard(x);
    const Tensor decided = dense(decision, false);
    dispatch_floating(x.scalar_type(), op, [&]<typename scalar_t>() {
      Backend::piecewise_frozen(Unit<wide_t<scalar_t>>{static_cast<wide_t<scalar_t>>(args)...},
                                shape, x.const_data_ptr<scalar_t>(),
                                decided.const_data_ptr<uint8_t>(), y.mutable_data_ptr<scalar_t>(),
                                guard);
    });
  }

  template <template <typename> typename Unit, typename... Args>
  static Tensor frozen(const char* op, const Tensor& x, const Tensor& decision, bool channels_last,
                       Args... args) {
    const PackedShape shape = frozen_shape(op, x, decision, Unit<float>::bits, channels_last);
    const typename Backend::Guard guard(x);
    Tensor y = empty_as(x, channels_last);
    apply<Unit>(op, shape, dense(x, channels_last), decision, y, args...);
    return y;
  }

  template <template <typename> typename Unit, typename... Args>
  static void frozen_(const char* op, const Tensor& x, const Tensor& decision, bool channels_last,
                      Args... args) {
    const PackedShape shape = frozen_shape(op, x, decision, Unit<float>::bits, channels_last);
    STD_TORCH_CHECK(channels_last ? is_channels_last(x) : x.is_contiguous(), op,
                    ": x is not dense in the decision's order");
    apply<Unit>(op, shape, x, decision, x, args...);
  }

  static std::tuple<Tensor, Tensor> relu_scope(const Tensor& x, int64_t references,
                                               double negative_slope, bool channels_last) {
    return scope<Relu>("relu_scope", x, references, channels_last, negative_slope);
  }
  static Tensor relu_frozen(const Tensor& x, const Tensor& decision, double negative_slope,
                            bool channels_last) {
    return frozen<Relu>("relu_frozen", x, decision, channels_last, negative_slope);
  }
  static void relu_frozen_(const Tensor& x, const Tensor& decision, double negative_slope,
                           bool channels_last) {
    frozen_<Relu>("relu_frozen_", x, decision, channels_last, negative_slope);
  }
  static std::tuple<Tensor, Tensor> clamp_scope(const Tensor& x, int64_t references, double min,
                                                double max, bool channels_last) {
    STD_TORCH_CHECK(min <= max, "clamp_scope: min must not be greater than max, got ", min, " and ",
                    max);
    return scope<Clamp>("clamp_scope", x, references, channels_last, min, max);
  }
  static Tensor clamp_frozen(const Tensor& x, const Tensor& decision, double min, double max,
                             bool channels_last) {
    return frozen<Clamp>("clamp_frozen", x, decision, channels_last, min, max);
  }
  static void clamp_frozen_(const Tensor& x, const Tensor& decision, double min, double max,
                            bool channels_last) {
    frozen_<Clamp>("clamp_frozen_", x, decision, channels_last, min, max);
  }

  static void implement(torch::stable::detail::StableLibrary& m) {
    m.impl("relu_scope", TORCH_BOX(&relu_scope));
    m.impl("relu_frozen", TORCH_BOX(&relu_frozen));
    m.impl("relu_frozen_", TORCH_BOX(&relu_frozen_));
    m.impl("clamp_scope", TORCH_BOX(&clamp_scope));
    m.impl("clamp_frozen", TORCH_BOX(&clamp_frozen));
    m.impl("clamp_frozen_", TORCH_BOX(&clamp_frozen_));
  }
};

}  // namespace linscope
