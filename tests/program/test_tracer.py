"""Views and writes, as functions of values: what is traced once is the function of any input."""

import pytest
import torch
from line_fuzz import compiled, constant, flat, mask, source

from linscope_cuda.program import Program
from linscope_cuda.program.tracer import Tracer, Untraceable

SHAPE = (1, 3, 4)


def traced(function, x):
    tracer = Tracer()
    with torch.no_grad(), tracer:
        y = function(tracer.input(x.clone()))
    return tracer.line(y), y


def inputs(count, seed=0, shape=SHAPE):
    """Whole numbers: all that is made of them here is exact, in whatever order it is summed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 5, (count, *shape[1:]), generator=generator).double()


def check(function, shape=SHAPE):
    """The traced line is the function: on other inputs, in batches, taken apart and transposed."""
    x = inputs(1, 1, shape)
    line, y = traced(function, x)
    assert torch.equal(y, function(x)), "tracing changes the function"
    xs = inputs(3, 2, shape)
    want = torch.cat([function(x[None]) for x in xs])
    kept = xs.clone()
    for _ in range(2):  # a run leaves no trace
        assert torch.equal(torch.cat([line(x[None]) for x in xs]), want), "the line"
    program = Program(line)
    assert torch.equal(torch.cat([program(x[None]) for x in xs]), want), "the simplified line"
    for _ in range(2):  # made, and kept
        assert torch.equal(program(xs), want), "three samples"
    assert torch.equal(xs, kept)

    size = x.numel()
    r = function(torch.zeros(shape, dtype=x.dtype))
    unit = torch.eye(size, dtype=x.dtype).reshape(size, *shape[1:])
    J = torch.cat([function(e[None]) - r for e in unit]).reshape(size, -1).T
    linear = program.linear
    assert torch.equal(torch.cat([linear(e[None]) for e in unit]).reshape(size, -1).T, J), "A"
    us = torch.eye(len(J), dtype=x.dtype).reshape(-1, *y.shape[1:])
    rows = torch.cat([program.T(u[None]) for u in us])
    assert torch.equal(rows.reshape(-1, size), J), "the transpose"
    assert torch.equal(program.T(us), rows), "the transpose of a batch"
    return line
