"""Pixel discussions and votes against matrices multiplied by hand."""

import pytest
import torch
from networks import INPUTS, PIECEWISE, Gated, build, example
from test_ledger import Attention, Mixing, Written, chain, interpreter, spread
from torch import nn

import linscope_cuda as ls


def test_a_discussion_is_what_one_multiplies_by_hand():
    model, x0, (W1, b1, A1), (W2, b2, A2), (W3, b3) = chain()
    F1, F2 = W1, W2 @ A1 @ W1
    F3 = W3 @ A2 @ F2
    want = []
    for s in range(3):
        q3 = torch.eye(3, dtype=torch.float64)[s]
        q2 = A2 @ W3.T @ q3
        q1 = A1 @ W2.T @ q2
        want.append(F3[s] * x0[0] + F1.T @ (q1 * b1) + F2.T @ (q2 * b2) + F3.T @ (q3 * b3))
    found = ls.pixel_discussion(ls.LinearInterpreter(model, x0), range(3))
    torch.testing.assert_close(found, torch.stack(want), rtol=1e-12, atol=1e-14)


def test_without_offsets_a_discussion_is_row_times_input():
    model = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.ReLU(), nn.Flatten()).double()
    op = ls.LinearInterpreter(model, torch.randn(1, 2, 5, 4, dtype=torch.float64))
    torch.testing.assert_close(ls.pixel_discussion(op, [0, 7]), op.rows([0, 7]) * op.x0)


@pytest.mark.parametrize("kind", [*PIECEWISE, Gated, Written, Attention])
def test_both_ways_and_all_sizes_of_batches_give_the_same(kind, device):
    op = interpreter(kind)
    outputs = spread(op, 5)
    together = ls.pixel_discussion(op, outputs)
    assert together.shape == (len(outputs), *op.input_shape)
    for batch in (4, 1):
        op.max_batch = batch
        apart = ls.pixel_discussion(op, outputs)
        torch.testing.assert_close(apart, together, rtol=1e-10, atol=1e-12)


def test_a_network_that_mixes_samples_is_discussed_as_that_of_one():
    op = interpreter(Mixing)
    first, last = op.model.first, op.model.last
    W1, b1, W2, b2 = (t.detach() for t in (first.weight, first.bias, last.weight, last.bias))
    half = 0.5 * W1  # h - 0.5 * h.sum(0) of one sample
    A = (half @ op.x0[0] + 0.5 * b1 + 0.1 > 0).double().diag()
    want = []
    for s in range(3):
        q = A @ W2[s]
        own = W2[s] @ A @ half * op.x0[0] + W1.T @ (0.5 * q * b1)
        own = own + half.T @ (q * 0.1) + (W2 @ A @ half).T @ (torch.eye(3)[s] * b2)
        want.append(own)
    torch.testing.assert_close(
        ls.pixel_discussion(op, range(3)), torch.stack(want), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_the_terms_of_a_sum_are_projected_back_each_by_its_own_way(sign):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.first(x) + sign * self.second(x) + x[:, 1:]

    torch.manual_seed(4)
    model = Sum().double()
    A, a, B, b = (t.detach() for t in model.parameters())
    x0 = torch.randn(1, 4, dtype=torch.float64)
    skip = torch.eye(4, dtype=torch.float64)[1:]
    want = (A + sign * B + skip) * x0 + A * a[:, None] + sign * B * b[:, None]
    found = ls.pixel_discussion(ls.LinearInterpreter(model, x0), range(3))
    torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-14)


class Picture(nn.Module):
    """A small classifier of pictures."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 7, 2)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )

    def forward(self, x):
        return self.layers(x)


@pytest.fixture
def picture():
    x0 = torch.randn(1, 3, 8, 6, generator=torch.Generator().manual_seed(2)).double()
    return ls.LinearInterpreter(build(Picture), x0)


def test_every_pixel_votes_once_for_its_largest_contribution(picture):
    every = ls.pixel_discussion(picture, range(7))
    for options, given in (
        ({}, every.sum(1)),
        ({"absolute": True}, every.sum(1).abs()),
        ({"per_channel": True}, every),
        ({"per_channel": True, "absolute": True}, every.abs()),
    ):
        picture.max_batch = 4  # two outputs at a time
        votes = ls.pixel_votes(picture, **options)
        assert votes.dtype == torch.int64
        assert torch.equal(votes, given.argmax(0))
    assert ls.pixel_votes(picture).flatten().bincount(minlength=7).sum() == 8 * 6


def test_candidates_are_named_by_their_position_in_the_output(picture):
    votes = ls.pixel_votes(picture, [5, (2,)])
    some = ls.pixel_discussion(picture, [5, 2]).sum(1)
    assert torch.equal(votes, torch.where(some[0] >= some[1], 5, 2))


def test_of_equal_contributions_the_first_candidate_wins(picture):
    picture.max_batch = 2
    last = picture.model.layers[3]
    with torch.no_grad():
        last.weight[4], last.bias[4] = last.weight[1], last.bias[1]
    op = ls.LinearInterpreter(picture.model, picture.x0)
    for batch in (2, 16):
        op.max_batch = batch
        assert (ls.pixel_votes(op, [4, 1]) == 4).all()
        assert (ls.pixel_votes(op, [1, 4]) == 1).all()


def test_progress_ends_at_one(picture):
    shares = []
    picture.max_batch = 4
    ls.pixel_votes(picture, progress=shares.append)
    assert shares == sorted(shares) and len(shares) == 4 and shares[-1] == 1


@pytest.mark.parametrize(
    ("outputs", "error", "message"),
    [([7], ValueError, "outside"), ([], ValueError, "one output or more"), (3, TypeError, "list")],
)
def test_wrong_candidates_are_refused(picture, outputs, error, message):
    with pytest.raises(error, match=message):
        ls.pixel_votes(picture, outputs)


def test_an_input_without_channels_votes_per_entry_only():
    op = ls.LinearInterpreter(build(Gated), example(Gated))
    with pytest.raises(ValueError, match="wants an input"):
        ls.pixel_votes(op)
    assert ls.pixel_votes(op, per_channel=True).shape == INPUTS[Gated][1:]


@pytest.mark.parametrize("function", [ls.pixel_discussion, ls.pixel_votes])
def test_another_operator_is_refused(function):
    with pytest.raises(TypeError, match="wants a LinearInterpreter"):
        function(ls.MatrixOperator(torch.eye(3)), [0])
