"""Other ways to run a line: through torch's compiler, and as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .graph import graph_module
from .line import Line

Run = Callable[[Tensor], Tensor]


def compiled(line: Line, **options: Any) -> Run:
    """The line by torch.compile, which is at work when the line first runs; equal within rounding.

    Frozen operators are taken apart, so that they become one with what stands beside them.
    """
    module = torch.compile(graph_module(line), dynamic=False, **options)

    @torch.no_grad()
    def run(x: Tensor) -> Tensor:
        y = module(x)
        return y if line.lives.is_own(line.output) else y.clone()

    return run


class CudaGraph:
    """A line as a CUDA graph, launched at once in place of step by step.

    The graph keeps memory of its own for all that the line makes.
    """

    def __init__(self, line: Line):
        device = line.input.device
        self.x = torch.zeros(line.input.shape, dtype=line.input.dtype, device=device)
        self.graph = torch.cuda.CUDAGraph()
        # torch asks for a run beforehand, on another stream: libraries set themselves up in it.
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            line(self.x)
        torch.cuda.current_stream(device).wait_stream(side)
        with torch.cuda.graph(self.graph):
            self.y = line(self.x)

    def __call__(self, x: Tensor) -> Tensor:
        self.x.copy_(x)
        self.graph.replay()
        return self.y.clone()
