"""Programs through torch's compiler, and as CUDA graphs."""

import pytest
import torch
from networks import INPUTS, build, example

import linscope_cuda as ls


def near(found, want):
    return (found - want).norm() <= 1e-12 * want.norm()


def products(op, count):
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(count, *op.input_shape, generator=generator, dtype=op.dtype)
    u = torch.randn(count, *op.output_shape, generator=generator, dtype=op.dtype)
    return op.filter(x.to(op.device)), op.transpose(u.to(op.device))


@pytest.mark.parametrize("kind", INPUTS)
def test_compiled_products_are_the_same(kind):
    op = ls.LinearInterpreter(build(kind), example(kind))
    want = {count: products(op, count) for count in (1, 2)}
    graphs = []

    def backend(module, inputs):  # what a compiler is given
        graphs.append(module)
        return module.forward

    op.compile(backend=backend)
    for count in (1, 2, 2):
        assert all(map(near, products(op, count), want[count]))
    assert len(graphs) == 4  # of two products, for one probe and for two


def test_inductor_makes_the_products():
    kind = next(iter(INPUTS))
    op = ls.LinearInterpreter(build(kind), example(kind))
    want = products(op, 1)
    op.compile()
    made = products(op, 1)
    assert all(map(near, made, want))
    made[0].zero_()
    assert all(map(near, products(op, 1), want))  # answers are the caller's own


def test_without_a_program_there_is_nothing_to_compile():
    kind = next(iter(INPUTS))
    op = ls.LinearInterpreter(build(kind), example(kind), storage="none")
    with pytest.raises(ValueError, match="compile wants a program that is kept"):
        op.compile()
    op = ls.LinearInterpreter(build(kind), example(kind))
    with pytest.raises(ValueError, match="capture makes CUDA graphs, the network is on cpu"):
        op.capture(2)


@pytest.mark.cuda
@pytest.mark.parametrize("count", [1, 3])
def test_a_graph_makes_the_products(count):
    kind = next(iter(INPUTS))
    op = ls.LinearInterpreter(build(kind).cuda(), example(kind).cuda())
    want = {n: products(op, n) for n in (1, 2, 3)}
    op.capture(count)
    for n in (count, 2, count):
        assert all(map(near, products(op, n), want[n]))
