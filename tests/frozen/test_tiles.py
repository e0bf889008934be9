"""Products in tiles, against products as a whole."""

import pytest
import torch
from networks import Image, Spellings, build, example
from place import here
from torch import nn

import linscope_cuda as ls
from linscope_cuda.frozen import tiles
from linscope_cuda.program.memory import peak_bytes


class Enlarging(nn.Module):
    """Residual blocks, and a tail that needs much more memory than they do."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
        self.tail = nn.Sequential(
            nn.Conv2d(8, 64, 3, padding=1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            nn.Conv2d(16, 64, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Conv2d(16, 3, 3, padding=1),
        )

    def forward(self, x):
        h = first = self.head(x)
        for conv in self.body:
            h = h + torch.relu(conv(h))
        return self.tail(h + first)


def interpreter(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x0 = Enlarging().double().eval(), torch.randn(1, 3, 30, 37).double()
    return ls.LinearInterpreter(here(model), here(x0), check=False, **options)


def same(got, wanted):
    assert (got - wanted).abs().max() <= 1e-13 * wanted.abs().max()


@pytest.mark.parametrize("part", [2, 5])
def test_products_in_tiles_are_products(part, monkeypatch):
    whole = interpreter()
    limit = whole.source.bytes_of_a_probe() // part
    op = interpreter(max_bytes=limit)
    ran, run = [], tiles.Local.run

    def watched(self, plans, x):
        ran.append(plans[0].peak_bytes)
        return run(self, plans, x)

    monkeypatch.setattr(tiles.Local, "run", watched)
    x, u = (torch.randn(2, *s, dtype=torch.float64) for s in (op.input_shape, op.output_shape))
    same(op.filter(here(x)), whole.program.linear(here(x)))
    same(op.transpose(here(u)), whole.program.T(here(u)))
    assert len(ran) > 4 and max(ran) <= limit


def test_all_of_f_keeps_to_it_too():
    whole = interpreter()
    op = interpreter(max_bytes=whole.source.bytes_of_a_probe() // 3)
    got, wanted = op.tosparse(progress=False), whole.tosparse(progress=False)
    assert len(op.source._tiles) == 1 and not whole.source._tiles
    assert abs(got - wanted).max() <= 1e-13 * abs(wanted).max()


def test_what_fits_runs_as_it_is():
    """The body is not run in tiles, whose borders would cost more than they are."""
    line = interpreter().program.linear.line
    tail = max(peak_bytes(part) for part in tiles._parts(line))
    parts = tiles.Tiles(line, tail // 2).parts
    kinds = [isinstance(part, tiles._Tiled) for part in parts]
    assert any(kinds) and not kinds[0]
    assert len(parts[0].steps) > 10  # head and body


def test_parts_are_the_line():
    line = interpreter().program.linear.line
    parts = tiles._parts(line)
    x = here(torch.randn(1, 3, 30, 37, dtype=torch.float64))
    y = x
    for part in parts:
        y = part(y)
    same(y, line(x))
    assert len(parts) > 6


@pytest.mark.parametrize("kind", [Spellings, Image])
@pytest.mark.parametrize("policy", ["paper", "taylor"])
def test_any_network(kind, policy):
    """Also where a step needs everything: there are no tiles of it."""
    whole = ls.LinearInterpreter(build(kind), example(kind), policy)
    op = ls.LinearInterpreter(build(kind), example(kind), policy, max_bytes=3000)
    x, u = (torch.randn(1, *s, dtype=torch.float64) for s in (op.input_shape, op.output_shape))
    same(op.filter(here(x)), whole.program.linear(here(x)))
    same(op.transpose(here(u)), whole.program.T(here(u)))


def test_gradients_flow_through_tiles():
    op = interpreter(max_bytes=2**18)
    x = here(torch.randn(1, *op.input_shape, dtype=torch.float64)).requires_grad_()
    u = here(torch.randn(1, *op.output_shape, dtype=torch.float64))
    (got,) = torch.autograd.grad(op.filter(x), x, u)
    same(got, interpreter().transpose(u))
