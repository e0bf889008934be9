"""What explanations are worth: curves by hand, shuffled networks, shares of ledgers."""

import math

import pytest
import torch
from torch import nn

import linscope_cuda as ls
from linscope_cuda.study import attributions
from linscope_cuda.study.attributions import (
    METHODS,
    Evidence,
    area,
    blank,
    blurred,
    cascade,
    curve,
    exchanged,
    map_of,
    probability,
    shuffled,
    stages,
    weighted,
)
from linscope_cuda.study.controls import CASES, SHARES, controls


def scores(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3)
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()


def inputs(count: int = 3, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, 1, 3, 17, 14, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_patches_are_exchanged_in_the_order_of_their_means(patch):
    x0, other, found = *inputs(2), torch.randn(17, 14, dtype=torch.float64)
    got = exchanged(x0, other, found, [0, 0.1, 0.5, 1], patch)
    corners = [(i, j) for i in range(0, 17, patch) for j in range(0, 14, patch)]
    corners.sort(key=lambda c: -found[c[0] : c[0] + patch, c[1] : c[1] + patch].mean())
    for share, image in zip([0, 0.1, 0.5, 1], got, strict=True):
        want = x0[0].clone()
        for i, j in corners[: round(share * len(corners))]:
            want[:, i : i + patch, j : j + patch] = other[0, :, i : i + patch, j : j + patch]
        assert torch.equal(image, want)


def test_a_curve_is_the_probability_of_each_picture():
    model, (x0,) = scores(), inputs(1)
    found = torch.randn(17, 14, dtype=torch.float64)
    got = curve(model, 2, x0, blank(x0), found, SHARES, 2)
    for share, value in zip(SHARES, got, strict=True):
        image = exchanged(x0, blank(x0), found, [share], 2)
        assert value.item() == pytest.approx(model(image).softmax(1)[0, 2].item(), rel=1e-9)
    assert blank(x0)[0, :, 3, 4].tolist() == pytest.approx(x0[0].mean((1, 2)).tolist())


def test_probabilities_are_taken_as_they_are():
    model, (x0,) = scores(), inputs(1)
    already = nn.Sequential(model, nn.Softmax(1))
    want = model(x0).softmax(1)[:, 1]
    torch.testing.assert_close(probability(model, x0, 1), want)
    torch.testing.assert_close(probability(already, x0, 1), want)


def test_areas():
    assert area(torch.tensor([1.0, 0.0, 0.0]).double(), [0, 0.5, 1]).item() == pytest.approx(0.25)
    assert area(torch.full((2, 3), 0.7).double(), [0, 0.1, 1]).tolist() == pytest.approx([0.7, 0.7])


def test_what_is_blurred_keeps_what_is_smooth():
    ramp = torch.linspace(0, 1, 60, dtype=torch.float64).expand(1, 2, 40, 60).clone()
    noisy = ramp + torch.randn_like(ramp)
    assert (blurred(ramp) - ramp)[..., 10:-10].abs().max() < 1e-6
    assert (blurred(noisy) - ramp).std() < 0.35 < (noisy - ramp).std()


def test_row_times_input_is_captums_where_units_are_of_pieces():
    captum = pytest.importorskip("captum.attr", reason="Captum is not installed")
    model, (x0,) = scores(), inputs(1)
    for label in range(5):
        got = map_of("row times input", Evidence(model, x0, label))
        want = captum.InputXGradient(model).attribute(x0.clone().requires_grad_(), target=label)
        torch.testing.assert_close(got, want[0].sum(0).detach())
    discussion = map_of("discussion", Evidence(model, x0, 3))
    op = ls.LinearInterpreter(model, x0)
    torch.testing.assert_close(discussion, ls.pixel_discussion(op, [3])[0].sum(0))


def test_the_centre_and_chance():
    (x0,) = inputs(1)
    centre = map_of("centre", Evidence(scores(), x0, 0))
    assert centre.argmax() == 8 * 14 + 6 and centre.argmin() == 0
    assert torch.equal(centre, centre.flip(0, 1))
    drawn = [
        map_of("random", Evidence(scores(), x0, 0, generator=torch.Generator().manual_seed(s)))
        for s in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_shuffled_weights_are_the_same_numbers():
    model = scores()
    names = weighted(model)
    assert names == ["3", "1", "0"]
    other = shuffled(model, names[:1])
    for name, p in model.named_parameters():
        q = other.get_parameter(name)
        assert torch.equal(p.flatten().sort().values, q.flatten().sort().values)
        assert torch.equal(p, q) == (not name.startswith("3"))


def test_stages_run_from_one_to_all():
    assert stages(5, 8) == [1, 2, 3, 4, 5]
    for count in (9, 26, 170):
        found = stages(count, 8)
        assert found[0] == 1 and found[-1] == count and len(found) <= 8
        assert found == sorted(set(found))


def test_likeness_is_one_where_shuffling_changes_nothing_and_none_for_chance():
    model, (x0,) = scores(), inputs(1)
    with torch.no_grad():
        model[3].weight.fill_(0.3)
        model[3].bias.fill_(0.1)
    names = ["row times input", "discussion", "centre", "random"]
    evidence = Evidence(model, x0, 1, generator=torch.Generator().manual_seed(0))
    maps = {name: map_of(name, evidence) for name in names}
    first, *_, last = cascade(evidence, maps, [1, 3])
    assert first["row times input"] == pytest.approx(1) == first["discussion"] == first["centre"]
    assert abs(first["random"]) < 0.3 and last["row times input"] < 0.98
    with torch.no_grad():
        model[3].weight.zero_()
    flat_map = {"row times input": map_of("row times input", Evidence(model, x0, 1))}
    (flat,) = cascade(Evidence(model, x0, 1), flat_map, [1])
    assert math.isnan(flat["row times input"])


class OnePatch(nn.Module):
    """Of two labels, the first for whatever is bright at one place."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 17, 14, dtype=torch.float64))
        self.weight.data[:, 4:8, 4:8] = 0.05

    def forward(self, x):
        y = (x.relu() * self.weight).flatten(1).sum(1)
        return torch.stack([y, y.detach() * 0 + 1], 1)


def test_a_map_that_is_right_is_better_than_chance():
    pictures = [0.1 * x for x in inputs(8)]
    for i, x in enumerate(pictures):
        x[:, :, 4:8, 4:8] += 1 + 0.1 * i
    found = controls(OnePatch(), pictures, ["row times input", "random"], patch=4, cascaded=2)
    assert found.photos == 8 and len(found.alike["random"]) == 2
    for which in ("deletion", "insertion"):
        mean, error = found.better(which, "row times input", "random")
        assert mean > 3 * error > 0
        back = found.better(which, "random", "row times input")
        assert back == pytest.approx((-mean, error))
    deletion = torch.stack(found.deletion["row times input"])
    want = [probability(OnePatch(), x, 0).item() for x in pictures]
    assert deletion[:, 0].tolist() == pytest.approx(want)


def test_shares_of_ledgers():
    model, pictures = scores(), inputs(2)
    found = controls(model, pictures, ["random"], cascaded=1, seed=3)
    assert list(found.parts) == list(CASES)
    names = found.entries()
    assert names == ["input", "0 conv2d", "3 conv2d"]
    for rows in found.parts.values():
        for row in rows:
            assert math.fsum(row.values()) == pytest.approx(1) and min(row.values()) >= 0
    label = int(model(pictures[1]).argmax())
    made = ls.ledger(ls.LinearInterpreter(model, pictures[1]), [label])
    sizes = torch.cat([made.input[:1], made.values[:, 0]]).abs()
    want = (sizes / sizes.sum()).tolist()
    assert list(found.parts["the network"][1].values()) == pytest.approx(want)
    other = shuffled(model, weighted(model), 3)
    made = ls.ledger(ls.LinearInterpreter(other, pictures[0]), [int(other(pictures[0]).argmax())])
    first = made.input[0].abs() / (made.input[0].abs() + made.values[:, 0].abs().sum())
    assert found.parts["shuffled weights"][0]["input"] == pytest.approx(first.item())
    assert found.parts["another label"][0] != found.parts["the network"][0]


def test_without_captum_its_methods_are_left_out(monkeypatch):
    assert set(attributions.available()) <= set(METHODS)
    monkeypatch.setattr(attributions.importlib.util, "find_spec", lambda name: None)
    assert attributions.available() == ["row times input", "discussion", "centre", "random"]
