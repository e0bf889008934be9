// instance_norm_scope, instance_norm_frozen, instance_norm_scope_backward: check, guard, allocate,
// run. `Backend` runs the loops. Planes may have any number of spatial dimensions.
#pragma once

#include "checks.h"

namespace linscope {

template <typename Backend>
struct InstanceNormOps {
  static NormShape norm_shape(const Tensor& x, const BatchShape& shape, bool channels_last,
                              const char* op) {
    STD_TORCH_CHECK(x.dim() >= 2, op, ": x must be (samples, channels, *spatial)");
    const int64_t area = x.size(1) == 0 ? 0 : shape.sample_size / x.size(1);
    return {shape.samples, shape.references, x.size(1), area, channels_last};
  }

  static std::tuple<Tensor, Tensor, Tensor> instance_norm_scope(const Tensor& x, int64_t references,
                                                                const std::optional<Tensor>& weight,
                                                                const std::optional<Tensor>& bias,
                                                                double eps) {
    const bool last = is_channels_last(x);
    const char* op = "instance_norm_scope";
    const NormShape shape = norm_shape(x, scope_shape(x, references, op), last, op);
    check_tensor(op, x, "weight", weight, {shape.channels}, wide_dtype(x));
    check_tensor(op, x, "bias", bias, {shape.channels}, wide_dtype(x));
    const typename Backend::Guard guard(x);
    const Tensor in = dense(x, last);
    const auto w = dense(weight), b = dense(bias);
    Tensor y = empty_as(x, last);
    Tensor mean = empty({references, shape.channels}, x, wide_dtype(x));
    Tensor rstd = empty({references, shape.channels}, x, wide_dtype(x));
    if (x.numel() == 0) return {y, torch::stable::fill_(mean, 0), torch::stable::fill_(rstd, 0)};
    dispatch_floating(x.scalar_type(), op, [&]<typename scalar_t>() {
      using wide = wide_t<scalar_t>;
      Backend::instance_norm_scope(shape, in.const_data_ptr<scalar_t>(), data<wide>(w),
                                   data<wide>(b), eps, y.mutable_data_ptr<scalar_t>(),
                                   mean.mutable_data_ptr<wide>(), rstd.mutable_data_ptr<wide>(),
                                   guard);
    });
    return {y, mean, rstd};
  }

  // mean, scale and shift are (references, channels) in float32 or better, as are weight and bias.
  static Tensor instance_norm_frozen(const Tensor& x, const std::optional<Tensor>& mean,
                                     const Tensor& scale, const std::optional<Tensor>& shift) {
    const bool last = is_channels_last(x);
    const char* op = "instance_norm_frozen";
    const NormShape shape = norm_shape(x, batch_shape(x, rows_of(scale, op), op), last, op);
    const Sizes planes = {shape.references, shape.channels};
    check_tensor(op, x, "mean", mean, planes, wide_dtype(x));
    check_tensor(op, x, "scale", scale, planes, wide_dtype(x));
    check_tensor(op, x, "shift", shift, planes, wide_dtype(x));
    const typename Backend::Guard guard(x);
    const Tensor in = dense(x, last), s = dense(scale, false);
    const auto m = dense(mean), b = dense(shift);
    Tensor y = empty_as(x, last);
    if (x.numel() == 0) return y;
    dispatch_floating(x.scalar_type(), op, [&]<typename scalar_t>() {
      using wide = wide_t<scalar_t>;
      Backend::instance_norm_frozen(shape, in.const_data_ptr<scalar_t>(), data<wide>(m),
                                    s.const_data_ptr<wide>(), data<wide>(b),
                                    y.mutable_data_ptr<scalar_t>(), guard);
    });
    return y;
  }

  // The gradients of x, and, summed over a reference and its probes, of shift and weight.
  static std::tuple<Tensor, Tensor, Tensor> instance_norm_scope_backward(
      const Tensor& grad_y, const Tensor& x, const Tensor& mean, const Tensor& rstd,
      const std::optional<Tensor>& weight) {
    const bool last = is_channels_last(x);
    const char* op = "instance_norm_scope_backward";
    const NormShape shape = norm_shape(x, scope_shape(x, rows_of(mean, op), op), last, op);
    const Sizes planes = {shape.references, shape.channels};
    check_tensor(op, x, "grad_y", grad_y, sizes_of(x), x.scalar_type());
    check_tensor(op, x, "mean", mean, planes, wide_dtype(x));
    check_tensor(op, x, "rstd", rstd, planes, wide_dtype(x));
    check_tensor(op, x, "weight", weight, {shape.channels}, wide_dtype(x));
    const typename Backend::Guard guard(x);
    const Tensor grad = dense(grad_y, last), in = dense(x, last), m = dense(mean, false),
                 i = dense(rstd, false);
    const auto w = dense(weight);
    Tensor grad_x = empty_as(x, last);
    Tensor sum_g = empty({shape.references, shape.channels}, x, wide_dtype(x));
    Tensor sum_gx = empty({shape.references, shape.channels}, x, wide_dtype(x));
    if (x.numel() == 0)
      return {grad_x, torch::stable::fill_(sum_g, 0), torch::stable::fill_(sum_gx, 0)};
    dispatch_floating(x.scalar_type(), op, [&]<typename scalar_t>() {
      using wide = wide_t<scalar_t>;
      Backend::instance_norm_scope_backward(
          shape, grad.const_data_ptr<scalar_t>(), in.const_data_ptr<scalar_t>(),
          m.const_data_ptr<wide>(), i.const_data_ptr<wide>(), data<wide>(w),
          grad_x.mutable_data_ptr<scalar_t>(), sum_g.mutable_data_ptr<wide>(),
          sum_gx.mutable_data_ptr<wide>(), guard);
    });
    return {grad_x, sum_g, sum_gx};
  }

  static void implement(torch::stable::detail::StableLibrary& m) {
    m.impl("instance_norm_scope", TORCH_BOX(&instance_norm_scope));
    m.impl("instance_norm_frozen", TORCH_BOX(&instance_norm_frozen));
    m.impl("instance_norm_scope_backward", TORCH_BOX(&instance_norm_scope_backward));
  }
};

}  // namespace linscope
