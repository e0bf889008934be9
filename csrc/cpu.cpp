#include "module.h"

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_cpu",
    "The CPU's loops of linscope_cuda; importing this module registers them with torch.", -1};

PyMODINIT_FUNC PyInit__cpu() { return linscope::create_module(&definition); }
