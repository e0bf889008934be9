// max_pool2d_scope, max_pool2d_frozen, max_pool2d_frozen_transpose: check, guard, allocate, run.
// `Backend` runs the loops. Pairs are (height, width).
#pragma once

#include "tensors.h"

namespace linscope {

template <typename Backend>
struct MaxPool2dOps {
  using Pair = std::vector<int64_t>;

  static Window window_of(const Pair& kernel, const Pair& stride, const Pair& padding,
                          const Pair& dilation) {
    const auto at = [](const Pair& p, size_t i) { return static_cast<int>(p[i]); };
    return {at(kernel, 0),  at(kernel, 1),  at(stride, 0),   at(stride, 1),
            at(padding, 0), at(padding, 1), at(dilation, 0), at(dilation, 1)};
  }

  static Planes planes_of(const Tensor& x, bool channels_last) {
    return {static_cast<int>(x.size(1)), static_cast<int>(x.size(2)), static_cast<int>(x.size(3)),
            channels_last};
  }

  // A window that starts in the padding behind the image is left out, also in ceil mode, as in
  // torch.
  static int64_t out_size(int64_t in, int kernel, int stride, int padding, int dilation,
                          bool ceil_mode) {
    const int64_t span = in + 2 * padding - dilation * (kernel - 1) - 1;
    int64_t out = (span + (ceil_mode ? stride - 1 : 0)) / stride + 1;
    if (ceil_mode && (out - 1) * stride >= in + padding) --out;
    return span < 0 && !(ceil_mode && span > -stride) ? 0 : out;
  }

  // Dilated taps can straddle a small image; an output without any pixel has no winner.
  static bool every_window_has_a_pixel(int64_t in, int64_t out, int kernel, int stride, int padding,
                                       int dilation) {
    for (int64_t o = 0; o < out; ++o) {
      int64_t tap = o * stride - padding;
      const int64_t last = tap + static_cast<int64_t>(kernel - 1) * dilation;
      if (tap < 0) tap += (-tap + dilation - 1) / dilation * dilation;
      if (tap > last || tap >= in) return false;
    }
    return true;
  }

  static PoolShape pool_shape(const Tensor& x, int64_t references, const Window& window,
                              int64_t out_height, int64_t out_width, bool channels_last) {
    const Planes in = planes_of(x, channels_last);
    return {x.size(0),
            references,
            in,
            {in.channels, static_cast<int>(out_height), static_cast<int>(out_width), channels_last},
            window};
  }

  static std::tuple<Tensor, Tensor> max_pool2d_scope(const Tensor& x, int64_t references,
                                                     const Pair& kernel, const Pair& stride,
                                                     const Pair& padding, const Pair& dilation,
                                                     bool ceil_mode) {
    STD_TORCH_CHECK(x.dim() == 4, "max_pool2d_scope: x must be (samples, channels, height, width)");
    scope_shape(x, references, "max_pool2d_scope");
    const Window w = window_of(kernel, stride, padding, dilation);
    const int64_t height =
        out_size(x.size(2), w.kernel_h, w.stride_h, w.padding_h, w.dilation_h, ceil_mode);
    const int64_t width =
        out_size(x.size(3), w.kernel_w, w.stride_w, w.padding_w, w.dilation_w, ceil_mode);
    STD_TORCH_CHECK(height > 0 && width > 0,
                    "max_pool2d_scope: the window is larger than the image");
    STD_TORCH_CHECK(every_window_has_a_pixel(x.size(2), height, w.kernel_h, w.stride_h, w.padding_h,
                                             w.dilation_h) &&
                        every_window_has_a_pixel(x.size(3), width, w.kernel_w, w.stride_w,
                                                 w.padding_w, w.dilation_w),
                    "max_pool2d_scope: a window has no pixel of the image");
    const typename Backend::Guard guard(x);
    const bool last = is_channels_last(x);
    const Tensor in = dense(x, last);
    const ScalarType code = w.kernel_h * w.kernel_w <= 256 ? ScalarType::Byte : ScalarType::Int;
    Tensor y = empty({x.size(0), x.size(1), height, width}, x, x.scalar_type(), last);
    Tensor decision = empty({references, x.size(1), height, width}, x, code, last);
    if (y.numel() == 0) return {y, decision};
    const PoolShape shape = pool_shape(x, references, w, height, width, last);
    dispatch_floating(x.scalar_type(), "max_pool2d_scope", [&]<typename scalar_t>() {
      dispatch_code(code, "max_pool2d_scope", [&]<typename code_t>() {
        Backend::max_pool2d_scope(shape, in.const_data_ptr<scalar_t>(),
                                  y.mutable_data_ptr<scalar_t>(),
                                  decision.mutable_data_ptr<code_t>(), guard);
      });
    });
    return {y, decision};
  }

  static void check_decision(const char* op, const Tensor& x, const Tensor& decision) {
    STD_TORCH_CHECK(
        x.dim() == 4 && decision.dim() == 4 && x.size(1) == decision.size(1), op,
        ": x and the decision must be (samples, channels, height, width) with the same channels");
    batch_shape(x, decision.size(0), op);
  }

  static Tensor max_pool2d_frozen(const Tensor& x, const Tensor& decision, const Pair& kernel,
                                  const Pair& stride, const Pair& padding, const Pair& dilation) {
    check_decision("max_pool2d_frozen", x, decision);
    const typename Backend::Guard guard(x);
    const bool last = is_channels_last(x);
    const Tensor in = dense(x, last), decided = dense(decision, last);
    Tensor y =
        empty({x.size(0), x.size(1), decision.size(2), decision.size(3)}, x, x.scalar_type(), last);
    if (y.numel() == 0) return y;
    const PoolShape shape =
        pool_shape(x, decision.size(0), window_of(kernel, stride, padding, dilation),
                   decision.size(2), decision.size(3), last);
    dispatch_floating(x.scalar_type(), "max_pool2d_frozen", [&]<typename scalar_t>() {
      dispatch_code(decision.scalar_type(), "max_pool2d_frozen", [&]<typename code_t>() {
        Backend::max_pool2d_frozen(shape, in.const_data_ptr<scalar_t>(),
                                   decided.const_data_ptr<code_t>(), y.mutable_data_ptr<scalar_t>(),
                                   guard);
      });
    });
    return y;
  }

  static Tensor max_pool2d_frozen_transpose(const Tensor& u, const Tensor& decision,
                                            const Pair& size, const Pair& kernel,
                                            const Pair& stride, const Pair& padding,
                                            const Pair& dilation) {
    check_decision("max_pool2d_frozen_transpose", u, decision);
    STD_TORCH_CHECK(u.size(2) == decision.size(2) && u.size(3) == decision.size(3),
                    "max_pool2d_frozen_transpose: u's planes are not of the decision's size");
    const typename Backend::Guard guard(u);
    const bool last = is_channels_last(u);
    const Tensor in = dense(u, last), decided = dense(decision, last);
    Tensor x = empty({u.size(0), u.size(1), size[0], size[1]}, u, u.scalar_type(), last);
    if (x.numel() == 0) return x;
    const PoolShape shape =
        pool_shape(x, decision.size(0), window_of(kernel, stride, padding, dilation),
                   decision.size(2), decision.size(3), last);
    dispatch_floating(u.scalar_type(), "max_pool2d_frozen_transpose", [&]<typename scalar_t>() {
      dispatch_code(decision.scalar_type(), "max_pool2d_frozen_transpose", [&]<typename code_t>() {
        Backend::max_pool2d_frozen_transpose(shape, in.const_data_ptr<scalar_t>(),
                                             decided.const_data_ptr<code_t>(),
                                             x.mutable_data_ptr<scalar_t>(), guard);
      });
    });
    return x;
  }

  static void implement(torch::stable::detail::StableLibrary& m) {
    m.impl("max_pool2d_scope", TORCH_BOX(&max_pool2d_scope));
    m.impl("max_pool2d_frozen", TORCH_BOX(&max_pool2d_frozen));
    m.impl("max_pool2d_frozen_transpose", TORCH_BOX(&max_pool2d_frozen_transpose));
  }
};

}  // namespace linscope
