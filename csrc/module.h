// A Python module without functions, whose import registers the operators that lie in its library
// and which says how that was built. It needs Python's limited API alone, so that one binary is for
// every Python.
#pragma once

#include <Python.h>

#include <initializer_list>
#include <utility>

#if defined(__clang__)
#define LINSCOPE_COMPILER __VERSION__
#elif defined(__GNUC__)
#define LINSCOPE_COMPILER "g++ " __VERSION__
#else
#define LINSCOPE_COMPILER "MSVC"
#endif

namespace linscope {

inline PyObject* create_module(
    PyModuleDef* definition,
    std::initializer_list<std::pair<const char*, const char*>> more_facts = {}) {
  PyObject* module = PyModule_Create(definition);
  if (module == nullptr) return nullptr;
  const auto add = [module](const char* name, const char* value) {
    return PyModule_AddStringConstant(module, name, value) == 0;
  };
  bool added = add("torch_version", LINSCOPE_TORCH_VERSION) && add("compiler", LINSCOPE_COMPILER);
  for (const auto& [name, value] : more_facts) added = added && add(name, value);
  if (added) return module;
  Py_DECREF(module);
  return nullptr;
}

}  // namespace linscope
