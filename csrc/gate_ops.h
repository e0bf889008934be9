// gate_scope, gate_frozen, gate_scope_backward: check, guard, allocate, run. `Backend` runs the
// loops.
#pragma once

#include "checks.h"

namespace linscope {

template <typename Backend>
struct GateOps {
  static void check_kind(int64_t kind, const char* op) {
    STD_TORCH_CHECK(dispatch_gate(kind, [&]<typename>() {}), op, ": no gate has the number ", kind);
  }

  static Sizes gate_sizes(const Tensor& x, int64_t references) {
    Sizes sizes = sizes_of(x);
    sizes[0] = references;
    return sizes;
  }

  static std::tuple<Tensor, Tensor> gate_scope(const Tensor& x, int64_t references, int64_t kind) {
    const BatchShape shape = scope_shape(x, references, "gate_scope");
    check_kind(kind, "gate_scope");
    const typename Backend::Guard guard(x);
    const bool last = is_channels_last(x);
    const Tensor in = dense(x, last);
    Tensor y = empty_as(x, last);
    Tensor gate = empty(gate_sizes(x, references), x, x.scalar_type(), last);
    if (x.numel() == 0) return {y, gate};
    dispatch_floating(x.scalar_type(), "gate_scope", [&]<typename scalar_t>() {
      dispatch_gate(kind, [&]<typename Gate>() {
        Backend::template gate_scope<Gate>(shape, in.const_data_ptr<scalar_t>(),
                                           y.mutable_data_ptr<scalar_t>(),
                                           gate.mutable_data_ptr<scalar_t>(), guard);
      });
    });
    return {y, gate};
  }

  static Tensor gate_frozen(const Tensor& x, const Tensor& gate, double shift) {
    const BatchShape shape = batch_shape(x, rows_of(gate, "gate_frozen"), "gate_frozen");
    check_tensor("gate_frozen", x, "gate", gate, gate_sizes(x, shape.references), x.scalar_type());
    const typename Backend::Guard guard(x);
    const bool last = is_channels_last(x);
    const Tensor in = dense(x, last), decided = dense(gate, last);
    Tensor y = empty_as(x, last);
    if (x.numel() == 0) return y;
    dispatch_floating(x.scalar_type(), "gate_frozen", [&]<typename scalar_t>() {
      Backend::gate_frozen(shape, in.const_data_ptr<scalar_t>(), decided.const_data_ptr<scalar_t>(),
                           shift, y.mutable_data_ptr<scalar_t>(), guard);
    });
    return y;
  }

  static Tensor gate_scope_backward(const Tensor& grad_y, const Tensor& x, int64_t references,
                                    int64_t kind) {
    const BatchShape shape = scope_shape(x, references, "gate_scope_backward");
    check_kind(kind, "gate_scope_backward");
    check_tensor("gate_scope_backward", x, "grad_y", grad_y, sizes_of(x), x.scalar_type());
    const typename Backend::Guard guard(x);
    const bool last = is_channels_last(x);
    const Tensor grad = dense(grad_y, last), in = dense(x, last);
    Tensor grad_x = empty_as(x, last);
    if (x.numel() == 0) return grad_x;
    dispatch_floating(x.scalar_type(), "gate_scope_backward", [&]<typename scalar_t>() {
      dispatch_gate(kind, [&]<typename Gate>() {
        Backend::template gate_scope_backward<Gate>(shape, grad.const_data_ptr<scalar_t>(),
                                                    in.const_data_ptr<scalar_t>(),
                                                    grad_x.mutable_data_ptr<scalar_t>(), guard);
      });
    });
    return grad_x;
  }

  static void implement(torch::stable::detail::StableLibrary& m) {
    m.impl("gate_scope", TORCH_BOX(&gate_scope));
    m.impl("gate_frozen", TORCH_BOX(&gate_frozen));
    m.impl("gate_scope_backward", TORCH_BOX(&gate_scope_backward));
  }
};

}  // namespace linscope
