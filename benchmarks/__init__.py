"""Benchmarks of linscope_cuda: `python -m benchmarks NAME [--device cpu|cuda] [--json FILE]`."""
