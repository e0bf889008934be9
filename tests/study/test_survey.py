"""Ledgers over photos: the definitions of the residual's share, means and deviations."""

import statistics

import pytest
import torch
from classifiers import classifier
from torch import nn

import linscope_cuda as ls
from linscope_cuda.report import BadInput
from linscope_cuda.study.survey import (
    Account,
    FromPixels,
    Moments,
    Survey,
    accounts,
    raw_pixels,
    readable,
)
from linscope_cuda.zoo import Network, Preprocess


@pytest.fixture
def cat():
    return ls.zoo.photo("cat").image


def test_raw_pixels_normalised_are_the_networks_input(cat):
    network = classifier()
    pixels = raw_pixels(network, cat)
    assert pixels.min() >= 0 and pixels.max() <= 255 and pixels.frac().abs().max() == 0
    x0 = FromPixels(network).normalisation(pixels)
    torch.testing.assert_close(x0, network.preprocess(cat), rtol=1e-5, atol=1e-5)


def test_luma_has_one_channel(cat):
    preprocess = Preprocess(size=(8, 8), order="L", offset=(100.0, 0, 0))
    network = Network(nn.Flatten(), preprocess, None, "")
    pixels = raw_pixels(network, cat)
    assert pixels.shape == (1, 1, 8, 8)
    assert torch.equal(FromPixels(network).normalisation(pixels), network.preprocess(cat))


def test_each_definition_is_what_two_interpreters_say(cat):
    network = classifier()
    model = FromPixels(network).double()
    pixels = raw_pixels(network, cat).double()
    (account,) = accounts(model, pixels) or ()
    found = account.shares()
    for kind, op in (
        ("raw", ls.LinearInterpreter(model, pixels)),
        ("normalised", ls.LinearInterpreter(network.model, model.normalisation(pixels))),
    ):
        best = op.output[0].argmax()
        y, r = op.output[0, best].item(), op.residual[0, best].item()
        assert account.top[0] == best and account.score == pytest.approx(y)
        assert found[f"{kind} r/y"] == pytest.approx(r / y, rel=1e-9)
        assert found[f"{kind} |r|"] == pytest.approx(abs(r) / (abs(r) + abs(y - r)), rel=1e-9)
    assert account.error < 1e-12
    assert list(account.parts) == [
        "input", "normalisation", "0 conv2d", "1 batch_norm", "2 hardtanh", "3 conv2d", "7 linear",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torch.nn.functional.conv2d in network.features.0", "features.0 conv2d"),
        ("torch.Tensor.sub in normalisation", "normalisation"),
        ("torch.sigmoid in network", "network sigmoid"),
        ("torch.Tensor.add", "add"),
    ],
)
def test_entries_have_readable_names(name, words):
    assert readable(name) == words


def test_moments_are_those_of_statistics():
    numbers, moments = [3.0, -1.5, 8.25, 8.25, 1e-3], Moments()
    for i, number in enumerate(numbers, 1):
        moments.add(number)
        assert moments.mean == pytest.approx(statistics.fmean(numbers[:i]))
        assert moments.deviation == pytest.approx(statistics.stdev(numbers[:i]) if i > 1 else 0)


def test_an_entry_that_some_photos_lack_counts_as_zero_there():
    survey = Survey()
    survey.add(Account([0], 2.0, {"input": 1.0, "b": 1.0}))
    survey.add(Account([0], 4.0, {"input": 1.0, "a": 1.0, "b": 2.0}))
    survey.add(Account([0], -1.0, {"input": -1.5, "b": 0.25, "c": 0.25}))
    assert list(survey.entries) == ["input", "a", "b", "c"]
    assert survey.entries["a"].mean == pytest.approx(0.25 / 3)
    assert survey.entries["a"].deviation == pytest.approx(statistics.stdev([0, 0.25, 0]))
    assert survey.entries["c"].mean == pytest.approx(-0.25 / 3)
    assert survey.total == pytest.approx(1) and survey.count == 3


def test_attacks_have_accounts_too(cat):
    network = classifier()
    model, pixels = FromPixels(network).double(), raw_pixels(network, cat).double()
    before, after = accounts(model, pixels, [8.0]) or ()
    assert before.parts["input"] != after.parts["input"]
    moved = ls.fgsm(model, pixels, [8.0], bounds=(0, 255))[1]
    assert after.score == pytest.approx(model(moved.x).max().item())
    assert after.error < 1e-12


def test_a_score_of_zero_has_no_shares():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.ReLU())
    model[1].bias.data.fill_(-1e6)
    network = Network(model.eval(), Preprocess(size=(2, 2)), None, "")
    assert accounts(FromPixels(network), raw_pixels(network, ls.zoo.photo("cat").image)) is None


def test_a_network_without_scores_is_refused(cat):
    network = Network(nn.Conv2d(3, 1, 1), Preprocess(size=(8, 8)), None, "")
    with pytest.raises(BadInput, match="gives no scores"):
        accounts(FromPixels(network), raw_pixels(network, cat))


@pytest.mark.network
def test_squeezenets_residual_shares_on_twenty_photos():
    network = ls.zoo.load("squeezenet1_1")
    assert network.preprocess.size == (227, 227) and network.preprocess.resampling == "bicubic"
    model, survey = FromPixels(network), Survey()
    for photo in ls.zoo.photos("imagenet20"):
        survey.add(accounts(model, raw_pixels(network, photo.image), check=False)[0])
    assert survey.count == 20 and survey.error < 1e-5
    assert survey.shares["normalised r/y"].mean == pytest.approx(0.166, abs=0.005)
    assert survey.shares["raw r/y"].mean == pytest.approx(0.556, abs=0.005)
    assert survey.total == pytest.approx(1, abs=1e-5)
