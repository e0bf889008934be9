#include "module.h"

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_cuda",
    "The CUDA kernels of linscope_cuda; importing this module registers them with torch.", -1};

PyMODINIT_FUNC PyInit__cuda() {
  return linscope::create_module(&definition, {{"cuda_version", LINSCOPE_CUDA_VERSION},
                                               {"architectures", LINSCOPE_CUDA_ARCHITECTURES}});
}
