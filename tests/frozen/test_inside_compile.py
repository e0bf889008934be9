"""Products called from what torch.compile compiles, which must not look into them."""

import warnings

import pytest
import torch
from torch import nn

import linscope_cuda as ls


@pytest.fixture(scope="module")
def op():
    torch.manual_seed(4)
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(4 * 4 * 3, 5)).eval()
    return ls.LinearInterpreter(model, torch.randn(1, 3, 8, 7))


CALLS = {
    "filter": lambda op, x, u: torch.sin(op.filter(2 * x)) + op.residual,
    "affine": lambda op, x, u: op(x).square().sum(),
    "matrix": lambda op, x, u: op.T @ (3 * u[0]) + (op.T @ u[:1]).flatten(),
    "rows": lambda op, x, u: op.rows([0, -1]).sum() * x,
}


@pytest.mark.parametrize("backend", ["eager", "inductor"])
@pytest.mark.parametrize("name", CALLS)
def test_the_same_without_a_word(name, backend, op):
    torch._dynamo.reset()
    call = CALLS[name]
    x, u = torch.randn(2, *op.input_shape), torch.randn(2, 5)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        compiled = torch.compile(call, backend=backend)
        made, passes = compiled(op, x, u), op.passes
        again = compiled(op, x + 1, u)
        spent = op.passes - passes
    torch.testing.assert_close(made, call(op, x, u))
    torch.testing.assert_close(again, call(op, x + 1, u))
    assert spent > 0 and not [w for w in said if "Dynamo" in str(w.message)]


def test_nothing_of_a_product_is_compiled(op):
    seen = []

    def backend(graph, inputs):
        seen.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    torch._dynamo.reset()
    x = torch.randn(2, *op.input_shape)
    torch.compile(lambda x: torch.sin(op.filter(torch.cos(x))), backend=backend)(x)
    assert seen == [torch.cos, torch.sin]
