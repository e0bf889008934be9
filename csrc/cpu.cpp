// The Python module whose import registers the CPU's loops. Apart from the schemas and the CUDA
// kernels, which are for every processor: these are compiled for AVX2.
#include <Python.h>

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_cpu",
    "The CPU's loops of linscope_cuda; importing this module registers them with torch.", -1};

PyMODINIT_FUNC PyInit__cpu() { return PyModule_Create(&definition); }
