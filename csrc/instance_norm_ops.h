// instance_norm_scope, instance_norm_frozen, instance_norm_scope_backward: check, guard, allocate,
// run. `Backend` runs the loops. Planes may have any number of spatial dimensions.
#pragma once

#include "tensors.h"

namespace linscope {

template <typename Backend>
struct InstanceNormOps {
  static NormShape norm_shape(const Tensor& x, int64_t references, bool channels_last,
                              const char* op) {
    STD_TORCH_CHECK(x.dim() >= 2, op, ": x must be (samples, channels, *spatial)");
    const BatchShape shape = batch_shape(x, references, op);
    const int64_t area = x.size(1) == 0 ? 0 : shape.sample_size / x.size(1);
    return {shape.samples, shape.references, x.size(1), area, channels_last};
  }

  static std::tuple<Tensor, Tensor, Tensor> instance_norm_scope(const Tensor& x, int64_t references,
                                                                const std::optional<Tensor>& weight,
                                                                const std::optional<Tensor>& bias,
                                                                double eps) {
    const bool last = is_channels_last(x);
    const NormShape shape = norm_shape(x, references, last, "instance_norm_scope");
    scope_shape(x, references, "instance_norm_scope");
    const typename Backend::Guard guard(x);
    const Tensor in = dense(x, last);
    const auto w = dense(weight), b = dense(bias);
    Tensor y = empty_as(x, last);
    Tensor mean = empty({references, shape.channels}, x, wide_dtype(x));
    Tensor rstd = empty({references, shape.channels}, x, wide_dtype(x));
    if (x.numel() == 0) return {y, torch::stable::fill_(mean, 0), torch::stable::fill_(rstd, 0)};
    dispatch_floating(x.scalar_type(), "instance_norm_scope", [&]<typename scalar_t>() {
      using wide = wide_t<scalar_t>;
      Backend::instance_norm_scope(shape, in.const_data_ptr<scalar_t>(), data<scalar_t>(w),
                                   data<scalar_t>(b), eps, y.mutable_data_ptr<scalar_t>(),
                                   mean.mutable_data_ptr<wide>(), rstd.mutable_data_ptr<wide>(),
                                   guard);
    });
    return {y, mean, rstd};
  }

  // mean, scale and shift are (references, channels) in float32 or better.
  static Tensor instance_norm_frozen(const Tensor& x, const std::optional<Tensor>& mean,
                                     const Tensor& scale, const std::optional<Tensor>& shift) {
    const bool last = is_channels_last(x);
    const NormShape shape = norm_shape(x, scale.size(0), last, "instance_norm_frozen");
    const auto fits = [&](const Tensor& t) {
      return t.dim() == 2 && t.size(0) == shape.references && t.size(1) == shape.channels &&
             t.scalar_type() == wide_dtype(x);
    };
    STD_TORCH_CHECK(fits(scale) && (!mean || fits(*mean)) && (!shift || fits(*shift)),
                    "instance_norm_frozen: mean, scale and shift must be (references, channels) in "
                    "float32 or better");
    const typename Backend::Guard guard(x);
    const Tensor in = dense(x, last), s = dense(scale, false);
    const auto m = dense(mean), b = dense(shift);
    Tensor y = empty_as(x, last);
    if (x.numel() == 0) return y;
    dispatch_floating(x.scalar_type(), "instance_norm_frozen", [&]<typename scalar_t>() {
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
    const NormShape shape = norm_shape(x, mean.size(0), last, "instance_norm_scope_backward");
    const typename Backend::Guard guard(x);
    const Tensor grad = dense(grad_y, last), in = dense(x, last), m = dense(mean, false),
                 i = dense(rstd, false);
    const auto w = dense(weight);
    Tensor grad_x = empty_as(x, last);
    Tensor sum_g = empty({shape.references, shape.channels}, x, wide_dtype(x));
    Tensor sum_gx = empty({shape.references, shape.channels}, x, wide_dtype(x));
    if (x.numel() == 0)
      return {grad_x, torch::stable::fill_(sum_g, 0), torch::stable::fill_(sum_gx, 0)};
    dispatch_floating(x.scalar_type(), "instance_norm_scope_backward", [&]<typename scalar_t>() {
      using wide = wide_t<scalar_t>;
      Backend::instance_norm_scope_backward(
          shape, grad.const_data_ptr<scalar_t>(), in.const_data_ptr<scalar_t>(),
          m.const_data_ptr<wide>(), i.const_data_ptr<wide>(), data<scalar_t>(w),
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
