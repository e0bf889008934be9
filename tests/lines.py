"""Functions as straight lines, and lines as matrices."""

import torch

from linscope_cuda.program.tracer import Tracer


def traced(function, x):
    """The line of function(x), and what it was when it was traced."""
    tracer = Tracer()
    with torch.no_grad(), tracer:
        y = function(tracer.input(x.clone()))
    return tracer.line(y), y


def units(shape, dtype=torch.float64):
    """The unit vectors of a shape: (size, *shape)."""
    size = torch.Size(shape).numel()
    return torch.eye(size, dtype=dtype).reshape(size, *shape)


def columns(linear, shape):
    """The matrix of a linear function of this shape, column by column."""
    return torch.stack([linear(e).flatten() for e in units(shape)], 1)
