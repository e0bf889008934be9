"""A line as a torch.fx graph, the way to torch.export and torch.compile."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from .line import Line
from .step import Value, substituted


def graph_module(line: Line) -> fx.GraphModule:
    """The line as a module of one function; its constants are buffers, which share their memory."""
    graph, root = fx.Graph(), nn.Module()
    names: dict[int, str] = {}  # of the constants, which the line keeps alive
    nodes: dict[int, Any] = {line.input.number: graph.placeholder("x")}

    def node(v: Any) -> Any:
        if isinstance(v, Value):
            return nodes[v.number]
        if id(v) not in names:
            names[id(v)] = f"constant{len(names)}"
            root.register_buffer(names[id(v)], v.detach())
        return graph.get_attr(names[id(v)])

    for step in line.steps:
        args, kwargs = substituted(step.args, node), substituted(step.kwargs, node)
        made = graph.call_function(step.function, args, kwargs)
        made.meta["label"] = step.label
        for at, value in enumerate(step.outputs):
            if value is not None:
                nodes[value.number] = made if step.single else _part(graph, made, at)
    graph.output(nodes[line.output.number])
    return fx.GraphModule(root, graph)


def _part(graph: fx.Graph, made: fx.Node, at: int) -> fx.Node:
    return graph.call_function(operator.getitem, (made, at))


def example(line: Line) -> Tensor:
    """An input of the line's kind."""
    return torch.zeros(line.input.shape, dtype=line.input.dtype, device=line.input.device)
