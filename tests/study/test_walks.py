"""Walks away from a photo: directions by name, their scale, and what is found along them."""

import math

import pytest
import torch
from torch import nn

import linscope_cuda as ls
from linscope_cuda.report.walks import walk_sheet
from linscope_cuda.study.errors import BadInput
from linscope_cuda.study.system import System
from linscope_cuda.study.walks import directions, grey_levels, walks
from linscope_cuda.zoo.preprocess import Preprocess

PREPROCESS = Preprocess(divisor=255, offset=(0.4, 0.5, 0.6), deviation=(0.2, 0.3, 0.1))


def system(*layers, side=9):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *layers).double().eval()
    x0 = torch.randn(1, 3, side, side + 2, dtype=torch.float64)
    return System("made", ls.LinearInterpreter(model, x0), PREPROCESS)


@pytest.fixture
def exact():
    return system(nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1), nn.LeakyReLU(0.3), nn.MaxPool2d(2, 1))


@pytest.fixture
def classifier():
    return system(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))


def by_pixels(x):
    """An input as the pixels that it is made of."""
    offset, deviation = (
        torch.tensor(v, dtype=torch.float64)[:, None, None]
        for v in (PREPROCESS.offset, PREPROCESS.deviation)
    )
    return (x * deviation + offset) * 255


def test_a_step_is_one_grey_level(exact):
    x1 = torch.randn(1, 3, 9, 11)
    made = directions(exact, ["noise", "fgsm", "v2", "there"], lambda name: x1, draws=3)
    assert [(way.name, len(way.steps)) for way in made] == [
        *(("noise", 3), ("fgsm", 1), ("v2", 1), ("there", 1))
    ]
    x0 = exact.op.x0
    for way in made:
        for step in way.steps:
            moved = by_pixels(x0 + step) - by_pixels(x0)
            assert moved.square().mean().sqrt().item() == pytest.approx(1)
            torch.testing.assert_close(grey_levels(PREPROCESS, step), moved, rtol=0, atol=1e-10)
        largest = max((by_pixels(x0 + s) - by_pixels(x0)).abs().max() for s in way.steps)
        assert way.largest == pytest.approx(largest.item())
    there = made[3]
    assert there.end is not None and made[0].end is None
    torch.testing.assert_close(x0 + there.end * there.steps[0], x1.double())


def test_directions_are_what_they_are_called(exact, classifier):
    (v,) = directions(exact, ["v2"], lambda name: pytest.fail(name))
    want = torch.linalg.svd(exact.op.todense())[2][1]
    got = v.steps[0].flatten() / v.steps[0].norm()
    assert torch.dot(got, want).abs().item() == pytest.approx(1, abs=1e-6)

    (sign,) = directions(classifier, ["fgsm"], lambda name: pytest.fail(name))
    x = classifier.op.x0.clone().requires_grad_()
    scores = classifier.op.model(x)
    nn.functional.cross_entropy(scores, scores.argmax(1)).backward()
    assert x.grad is not None and torch.equal(sign.steps[0].sign(), x.grad.sign())
    assert grey_levels(PREPROCESS, sign.steps[0]).abs().unique().allclose(torch.ones(1).double())

    one, two = directions(exact, ["noise"], lambda name: pytest.fail(name), 2)[0].steps
    assert abs(torch.dot(one.flatten(), two.flatten()) / one.norm() / two.norm()) < 0.2


def test_what_is_no_way(exact):
    with pytest.raises(BadInput, match=r"v1 \.\.\. v16, was given v17"):
        directions(exact, ["v17"], lambda name: exact.op.x0)
    with pytest.raises(BadInput, match="cat is the network's own input"):
        directions(exact, ["cat"], lambda name: exact.op.x0)


def test_walks_are_regions_and_drifts(exact):
    ways = directions(exact, ["v1", "noise"], lambda name: exact.op.x0, draws=3)
    shares = []
    found = walks(exact, ways, 5, 20.0, lambda share, text: shares.append(share))
    assert shares == sorted(shares) and 0.9 < shares[-1] < 1
    firsts = [ls.region(exact.op, step).high for way in ways for step in way.steps]
    for walk, want in zip(found, (firsts[:1], firsts[1:]), strict=True):
        assert walk.reason is None and [r.high for r in walk.regions] == want
        mean, deviation = walk.first
        assert mean == pytest.approx(sum(want) / len(want))
        spread = torch.tensor(want).std().item() if len(want) > 1 else 0
        assert deviation == pytest.approx(spread, rel=1e-5)
        ts = walk.drifts[0].ts
        assert ts[0].item() == pytest.approx(min(firsts) / 2) and ts[-1].item() == pytest.approx(20)
        steps = [ts[1:] / ts[:-1]]
        assert steps[0].allclose(steps[0][0])
        for step, drift in zip(walk.direction.steps, walk.drifts, strict=True):
            assert torch.equal(drift.error, ls.drift(exact.op, step, ts).error)
        assert walk.seen[0] < min(want) <= walk.seen[1]
        assert walk.by_entry.shape == (5, 3) and not walk.by_entry[0].any()
    assert walk_sheet(found, "a title", "a note").startswith(b"\x89PNG")


def test_where_the_error_reaches_a_share(exact):
    (walk,) = walks(exact, directions(exact, ["noise"], lambda name: exact.op.x0), 30, 64.0)
    t = walk.reaches(0.05)
    step = [ls.drift(exact.op, d, [t]).relative for d in walk.direction.steps]
    assert torch.stack(step).mean().item() == pytest.approx(0.05, rel=0.1)
    assert walk.reaches(1e9) == math.inf


def test_a_network_that_is_measured():
    normed = system(nn.InstanceNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3))
    (walk,) = walks(normed, directions(normed, ["v1"], lambda name: normed.op.x0), 7, 64.0)
    assert "instance_norm" in walk.reason and walk.first is None and walk.regions == []
    low, high = walk.seen
    flipped = ls.drift(normed.op, walk.direction.steps[0], [low, high]).flipped.sum(1)
    assert flipped[0] == 0 and flipped[1] > 0
    assert walk.by_entry.isnan().all(0).tolist() == [True, False]
    assert walk_sheet([walk], "a title", "a note").startswith(b"\x89PNG")


def test_a_network_without_decisions_of_several():
    smooth = system(nn.Tanh())
    (walk,) = walks(smooth, directions(smooth, ["v1"], lambda name: smooth.op.x0), 3, 10.0)
    assert walk.seen == (10.0, math.inf) and walk.share.isnan().all()
    assert walk_sheet([walk], "a title", "a note").startswith(b"\x89PNG")
