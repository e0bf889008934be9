"""F as a local part and one of low rank."""

import pytest
import torch
import torch.nn.functional as F
from place import here
from torch import nn

import linscope_cuda as ls


class Norms(nn.Module):
    """Two norms, whose means come one of the other."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 6, 3, padding=1)
        self.last = nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, x):
        h = F.relu(F.instance_norm(self.first(x)))
        return self.last(F.relu(F.instance_norm(self.second(h))))


class Excited(nn.Module):
    """Channels weighted by what is in all of the picture."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 2, 3, padding=1)
        self.gate = nn.Linear(5, 5)

    def forward(self, x):
        h = F.relu(self.first(x))
        return self.last(h * torch.sigmoid(self.gate(h.mean((2, 3))))[:, :, None, None])


class Scores(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 5, 3, padding=1), nn.Linear(5, 4)

    def forward(self, x):
        return self.last(F.adaptive_avg_pool2d(F.relu(self.first(x)), 1).flatten(1))


class Mean(nn.Module):
    """The number is the answer."""

    def forward(self, x):
        return (x * x.abs()).mean((2, 3))


def interpreter(kind, policy, size=(9, 11)):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x0 = kind().double().eval(), torch.randn(1, 3, *size, dtype=torch.float64)
    return ls.LinearInterpreter(here(model), here(x0), policy)


@pytest.mark.parametrize(
    ("kind", "policy", "count"),
    [
        (Norms, "paper", 0),
        (Norms, "centered", 5 + 6),
        (Norms, "taylor", 2 * (5 + 6)),
        (Excited, "paper", 0),
        (Excited, "taylor", 5),
        (Scores, "paper", 5),
        (Mean, "paper", 3),
    ],
)
def test_the_parts_are_all_of_it(kind, policy, count):
    op = interpreter(kind, policy)
    whole = op.todense()
    local, low_rank = op.split()
    dense = local.todense()
    if not count:
        assert low_rank is None and torch.equal(dense, whole)
        return
    assert low_rank.rank == count
    scale = whole.abs().max()
    assert low_rank.U.shape == (op.shape[0], count) and low_rank.V.shape == (count, op.shape[1])
    assert (dense + low_rank.U @ low_rank.V - whole).abs().max() <= 1e-13 * scale
    generator = torch.Generator().manual_seed(3)
    x = here(torch.randn(3, *op.input_shape, generator=generator, dtype=torch.float64))
    u = here(torch.randn(3, *op.output_shape, generator=generator, dtype=torch.float64))
    both = local + low_rank
    assert (both.filter(x) - op.filter(x)).abs().max() <= 1e-12 * op.filter(x).abs().max()
    assert (both.transpose(u) - op.transpose(u)).abs().max() <= 1e-12 * scale
    assert (low_rank.T.todense() - (low_rank.U @ low_rank.V).T).abs().max() <= 1e-13 * scale


@pytest.mark.parametrize("policy", ["centered", "taylor"])
def test_the_local_part_has_the_fields_of_the_convolutions(policy):
    op = interpreter(Norms, policy, (20, 21))
    local, _ = op.split()
    assert op.support(rows=[(0, 10, 10)]) == [((0, 3), (0, 20), (0, 21))]
    assert local.support(rows=[(0, 10, 10)]) == [((0, 3), (7, 14), (7, 14))]
    frozen = interpreter(Norms, "paper", (20, 21))
    assert local.tosparse(progress=False).nnz == frozen.tosparse(progress=False).nnz
    assert not local.residual.any()


def test_too_large_a_matrix_says_what_helps():
    op = interpreter(Norms, "centered")
    with pytest.raises(ValueError, match=r"`split\(\)` tells"):
        op.tosparse(max_bytes=1000)
