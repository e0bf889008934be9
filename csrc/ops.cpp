// Every operator's schema, and the Python module whose import registers them.
//
// x holds `references` reference samples, then probes; probe j belongs to reference j mod
// references. A scope decides on the references and applies the decision to all; a frozen operator
// applies a recorded decision to any multiple of `references` samples.
#include <pybind11/pybind11.h>
#include <torch/csrc/stable/library.h>
#include <torch/headeronly/version.h>

#ifndef LINSCOPE_CUDA_VERSION
#define LINSCOPE_CUDA_VERSION ""
#define LINSCOPE_CUDA_ARCHITECTURES ""
#endif

STABLE_TORCH_LIBRARY(linscope, m) {
  // Shapes without data, derivatives and batching are registered from Python.
  const auto def = [&m](const char* schema) {
#if TORCH_FEATURE_VERSION >= TORCH_VERSION_2_12_0
    m.def(schema, {at::Tag::pt2_compliant_tag});
#else
    m.def(schema);
#endif
  };
  def("relu_scope(Tensor x, SymInt references, float negative_slope, bool channels_last) -> "
      "(Tensor, Tensor)");
  def("relu_frozen(Tensor x, Tensor decision, float negative_slope, bool channels_last) -> Tensor");
  def("relu_frozen_(Tensor(a!) x, Tensor decision, float negative_slope, bool channels_last) -> "
      "()");

  def("clamp_scope(Tensor x, SymInt references, float min, float max, bool channels_last) -> "
      "(Tensor, Tensor)");
  def("clamp_frozen(Tensor x, Tensor decision, float min, float max, bool channels_last) -> "
      "Tensor");
  def("clamp_frozen_(Tensor(a!) x, Tensor decision, float min, float max, bool channels_last) -> "
      "()");

  def("gate_scope(Tensor x, SymInt references, int kind) -> (Tensor, Tensor)");
  def("gate_frozen(Tensor x, Tensor gate, float shift) -> Tensor");
  def("gate_scope_backward(Tensor grad_y, Tensor x, SymInt references, int kind) -> Tensor");

  def("max_pool2d_scope(Tensor x, SymInt references, int[] kernel, int[] stride, int[] padding, "
      "int[] dilation, bool ceil_mode) -> (Tensor, Tensor)");
  def("max_pool2d_frozen(Tensor x, Tensor decision, int[] kernel, int[] stride, int[] padding, "
      "int[] dilation) -> Tensor");
  def("max_pool2d_frozen_transpose(Tensor u, Tensor decision, SymInt[] size, int[] kernel, int[] "
      "stride, int[] padding, int[] dilation) -> Tensor");

  def("instance_norm_scope(Tensor x, SymInt references, Tensor? weight, Tensor? bias, float eps) "
      "-> (Tensor, Tensor, Tensor)");
  def("instance_norm_frozen(Tensor x, Tensor? mean, Tensor scale, Tensor? shift) -> Tensor");
  def("instance_norm_scope_backward(Tensor grad_y, Tensor x, Tensor mean, Tensor rstd, Tensor? "
      "weight) -> (Tensor, Tensor, Tensor)");
}

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled operators of linscope_cuda; importing this module registers them with torch.";
  m.attr("cuda_version") = LINSCOPE_CUDA_VERSION;
  m.attr("cuda_architectures") = LINSCOPE_CUDA_ARCHITECTURES;
  m.attr("torch_version") = LINSCOPE_TORCH_VERSION;
  m.attr("compiler") = "" __VERSION__;
}
