// max_pool2d_scope, max_pool2d_frozen, max_pool2d_frozen_transpose: check, guard, allocate, run.
// `Backend` runs the loops. Pairs are (height, width).
#pragma once

#include <array>
#include <limits>

#include "checks.h"

namespace linscope {

// A window along one dimension of the image. What a kernel computes with it fits an int.
struct Side {
  int64_t kernel, stride, padding, dilation;

  static constexpr int64_t largest = std::numeric_limits<int>::max();

  bool is_window() const {
    return 1 <= kernel && kernel <= largest && 1 <= stride && stride <= largest && 1 <= dilation &&
           dilation <= largest;
  }

  bool padding_fits() const {
    return 0 <= padding && padding <= largest && 2 * padding <= dilation * (kernel - 1) + 1;
  }

  bool fits(int64_t size) const {
    return size <= largest && size + 2 * padding + dilation * kernel + 2 * stride <= largest;
  }

  // How many outputs `size` pixels have. A window that starts in the padding behind the image is
  // left out, also in ceil mode, as in torch.
  int64_t outputs(int64_t size, bool ceil_mode) const {
    const int64_t span = size + 2 * padding - dilation * (kernel - 1) - 1;
    if (span < 0 && !(ceil_mode && span > -stride)) return 0;
    const int64_t out = (span + (ceil_mode ? stride - 1 : 0)) / stride + 1;
    return ceil_mode && (out - 1) * stride >= size + padding ? out - 1 : out;
  }

  // Dilated taps can straddle a small image; an output without any pixel has no winner.
  bool every_output_has_a_pixel(int64_t size, int64_t outputs) const {
    if (outputs < 1 || (outputs - 1) * stride - padding >= size) return false;
    if (dilation <= size) return true;
    for (int64_t o = 0; o < outputs && o * stride < padding; ++o) {
      const int64_t before =
          padding - o * stride;  // pixels between the window's corner and the image
      if ((dilation - before % dilation) % dilation >= size) return false;
    }
    return true;
  }
};

template <typename Backend>
struct MaxPool2dOps {
  using Pair = std::vector<int64_t>;
  using Sides = std::array<Side, 2>;

  static Sides sides_of(const char* op, const Pair& kernel, const Pair& stride, const Pair& padding,
                        const Pair& dilation) {
    for (const Pair* pair : {&kernel, &stride, &padding, &dilation}) {
      STD_TORCH_CHECK(pair->size() == 2, op,
                      ": kernel, stride, padding and dilation must be (height, width), not ",
                      text(*pair));
    }
    Sides sides;
    for (size_t d = 0; d < 2; ++d) {
      sides[d] = {kernel[d], stride[d], padding[d], dilation[d]};
      STD_TORCH_CHECK(sides[d].is_window(), op,
                      ": kernel, stride and dilation must be positive and less than 2^31");
      STD_TORCH_CHECK(sides[d].padding_fits(), op, ": padding must be at most half of the window");
    }
    STD_TORCH_CHECK(kernel[0] * kernel[1] <= Side::largest, op,
                    ": the window has 2^31 pixels or more");
    return sides;
  }

  static ScalarType code_of(const Sides& sides) {
    return sides[0].kernel * sides[1].kernel <= 256 ? ScalarType::Byte : ScalarType::Int;
  }

  // The outputs of an image that is (height, width).
  static Pair outputs_of(const char* op, const Sides& sides, const Pair& size, bool ceil_mode) {
    for (size_t d = 0; d < 2; ++d) {
      STD_TORCH_CHECK(sides[d].fits(size[d]), op, ": an image of ", text(size),
                      " pixels with this window goes beyond 2^31");
    }
    return {sides[0].outputs(size[0], ceil_mode), sides[1].outputs(size[1], ceil_mode)};
  }

  static bool every_output_has_a_pixel(const Sides& sides, const Pair& size, const Pair& outputs) {
    return sides[0].every_output_has_a_pixel(size[0], outputs[0]) &&
           sides[1].every_output_has_a_pixel(size[1], outputs[1]);
  }

  // samples of (channels, *size), pooled to (channels, *outputs)
  static PoolShape pool_shape(const BatchShape& batch, int64_t channels, const Pair& size,
                              const Pair& outputs, const Sides& sides, bool channels_last) {
    const auto as_int = [](int64_t n) { return static_cast<int>(n); };
    const auto planes = [&](const Pair& p) {
      return Planes{as_int(channels), as_int(p[0]), as_int(p[1]), channels_last};
    };
    const Side &h = sides[0], &w = sides[1];
    return {batch.samples,
            batch.references,
            planes(size),
            planes(outputs),
            {as_int(h.kernel), as_int(w.kernel), as_int(h.stride), as_int(w.stride),
             as_int(h.padding), as_int(w.padding), as_int(h.dilation), as_int(w.dilation)}};
  }

  static void check_images(const char* op, const Tensor& x) {
    STD_TORCH_CHECK(x.dim() == 4 && x.size(1) <= Side::largest, op,
                    ": x must be (samples, channels, height, width)");
  }

  static std::tuple<Tensor, Tensor> max_pool2d_scope(const Tensor& x, int64_t references,
                                                     const Pair& kernel, const Pair& stride,
                                                     const Pair& padding, const Pair& dilation,
                                                     bool ceil_mode) {
    const char* op = "max_pool2d_scope";
    const BatchShape batch = scope_shape(x, references, op);
    check_images(op, x);
    STD_TORCH_CHECK(x.numel() > 0, op, ": ", text(sizes_of(x)), " holds no pixel");
    const Sides sides = sides_of(op, kernel, stride, padding, dilation);
    const Pair size = {x.size(2), x.size(3)};
    const Pair outputs = outputs_of(op, sides, size, ceil_mode);
    STD_TORCH_CHECK(every_output_has_a_pixel(sides, size, outputs), op, ": an image of ",
                    text(size), " pixels leaves a window without any pixel");
    const typename Backend::Guard guard(x);
    const bool last = is_channels_last(x);
    const Tensor in = dense(x, last);
    const ScalarType code = code_of(sides);
    Tensor y = empty({x.size(0), x.size(1), outputs[0], outputs[1]}, x, x.scalar_type(), last);
    Tensor decision = empty({references, x.size(1), outputs[0], outputs[1]}, x, code, last);
    const PoolShape shape = pool_shape(batch, x.size(1), size, outputs, sides, last);
    dispatch_floating(x.scalar_type(), op, [&]<typename scalar_t>() {
      dispatch_code(code, op, [&]<typename code_t>() {
        Backend::max_pool2d_scope(shape, in.const_data_ptr<scalar_t>(),
                                  y.mutable_data_ptr<scalar_t>(),
                                  decision.mutable_data_ptr<code_t>(), guard);
      });
    });
    return {y, decision};
  }

  // The shape of images of `size` whose outputs `decision` was taken for; x's samples are either.
  static PoolShape frozen_shape(const char* op, const Tensor& x, const Tensor& decision,
                                const Pair& size, const Pair& kernel, const Pair& stride,
                                const Pair& padding, const Pair& dilation) {
    const BatchShape batch = batch_shape(x, rows_of(decision, op), op);
    check_images(op, x);
    STD_TORCH_CHECK(decision.dim() == 4, op,
                    ": the decision must be (references, channels, height, width)");
    STD_TORCH_CHECK(size.size() == 2, op, ": size must be (height, width), not ", text(size));
    const Sides sides = sides_of(op, kernel, stride, padding, dilation);
    const Pair outputs = {decision.size(2), decision.size(3)};
    check_tensor(op, x, "decision", decision, {batch.references, x.size(1), outputs[0], outputs[1]},
                 code_of(sides));
    STD_TORCH_CHECK((outputs == outputs_of(op, sides, size, false) ||
                     outputs == outputs_of(op, sides, size, true)) &&
                        every_output_has_a_pixel(sides, size, outputs),
                    op, ": this window does not take an image of ", text(size), " pixels to ",
                    text(outputs));
    return pool_shape(batch, x.size(1), size, outputs, sides, is_channels_last(x));
  }

  static Tensor max_pool2d_frozen(const Tensor& x, const Tensor& decision, const Pair& kernel,
                                  const Pair& stride, const Pair& padding, const Pair& dilation) {
    const char* op = "max_pool2d_frozen";
    check_images(op, x);
    const PoolShape shape =
        frozen_shape(op, x, decision, {x.size(2), x.size(3)}, kernel, stride, padding, dilation);
    const typename Backend::Guard guard(x);
    const bool last = shape.in.channels_last;
    const Tensor in = dense(x, last), decided = dense(decision, last);
    Tensor y =
        empty({x.size(0), x.size(1), decision.size(2), decision.size(3)}, x, x.scalar_type(), last);
    if (y.numel() == 0) return y;
    dispatch_floating(x.scalar_type(), op, [&]<typename scalar_t>() {
      dispatch_code(decision.scalar_type(), op, [&]<typename code_t>() {
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
    const char* op = "max_pool2d_frozen_transpose";
    const PoolShape shape = frozen_shape(op, u, decision, size, kernel, stride, padding, dilation);
    STD_TORCH_CHECK(u.size(2) == decision.size(2) && u.size(3) == decision.size(3), op,
                    ": u's planes are not of the decision's size");
    const typename Backend::Guard guard(u);
    const bool last = shape.in.channels_last;
    const Tensor in = dense(u, last), decided = dense(decision, last);
    Tensor x = empty({u.size(0), u.size(1), size[0], size[1]}, u, u.scalar_type(), last);
    if (x.numel() == 0) return x;
    dispatch_floating(u.scalar_type(), op, [&]<typename scalar_t>() {
      dispatch_code(decision.scalar_type(), op, [&]<typename code_t>() {
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
