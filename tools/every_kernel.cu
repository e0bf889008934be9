// Every kernel that the operators can launch, without torch around them: tools/machine_code.py
// compiles this file and reads what came out.
#include "gate.cuh"
#include "instance_norm.cuh"
#include "max_pool2d.cuh"
#include "piecewise.cuh"

namespace linscope {

// Launchers choose among their kernels when they run, so the compiler makes all of them.
template <typename T>
void every_kernel() {
  T* x = nullptr;
  wide_t<T>* wide = nullptr;

  for (int64_t kind = 0;
       dispatch_gate(kind,
                     [&]<typename Gate>() {
                       launch_gate_scope<Gate>(BatchShape{}, x, x, x, nullptr);
                       launch_gate_scope_backward<Gate>(BatchShape{}, x, x, x, nullptr);
                     });
       ++kind) {
  }
  launch_gate_frozen(BatchShape{}, x, x, 0, x, nullptr);

  const auto piecewise = [&]<typename Unit>(Unit unit) {
    uint8_t* decision = nullptr;
    launch_piecewise_scope(unit, PackedShape{}, x, x, decision, nullptr);
    launch_piecewise_frozen(unit, PackedShape{}, x, decision, x, nullptr);
  };
  piecewise(Relu<wide_t<T>>{});
  piecewise(Clamp<wide_t<T>>{});

  const auto max_pool2d = [&]<typename code_t>(code_t* decision) {
    launch_max_pool2d_scope(PoolShape{}, x, x, decision, nullptr);
    launch_max_pool2d_frozen(PoolShape{}, x, decision, x, nullptr);
    launch_max_pool2d_frozen_transpose(PoolShape{}, x, decision, x, nullptr);
  };
  max_pool2d(static_cast<uint8_t*>(nullptr));
  max_pool2d(static_cast<int32_t*>(nullptr));

  launch_instance_norm_scope(NormShape{}, x, wide, wide, 0, x, wide, wide, wide, 0, nullptr);
  launch_instance_norm_frozen(NormShape{}, x, wide, wide, wide, x, nullptr);
  launch_instance_norm_scope_backward(NormShape{}, x, x, wide, wide, wide, x, wide, wide, wide,
                                      nullptr);
}

template void every_kernel<float>();
template void every_kernel<double>();
template void every_kernel<__half>();
template void every_kernel<__nv_bfloat16>();

}  // namespace linscope
