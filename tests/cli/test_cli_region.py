"""`linscope region`: what it writes, prints and refuses."""

import json

import pytest
import torch
from commands import in_zoo, network, refused, tiny
from PIL import Image
from torch import nn

import linscope_cuda as ls
from linscope_cuda import cli


def bent():
    torch.manual_seed(6)
    return network(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3)))


def scores():
    torch.manual_seed(7)
    head = nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(16, 5)
    return network(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), *head))


def smooth():
    torch.manual_seed(8)
    return network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    in_zoo(monkeypatch, tiny=tiny, bent=bent, scores=scores, smooth=smooth)
    monkeypatch.chdir(tmp_path)
    return tmp_path


QUICK = ["region", "--size", "16", "--points", "4", "--draws", "2"]


def run(capsys, *arguments):
    assert cli.main([*QUICK, *arguments]) == 0
    return capsys.readouterr().out


def test_json_equals_recomputation(here, capsys):
    found = json.loads(run(capsys, "--model", "bent", "--json", "--out", "new"))
    assert json.loads((here / "new" / "region.json").read_text()) == found
    assert found["exact"] and found["reason"] is None and found["dtype"] == "float64"
    assert found["decisions"] == 4 * 16 * 16 and found["layers"] == ["1 (relu)"]
    names = [walk["direction"] for walk in found["walks"]]
    assert names == ["v1", "fgsm", "noise", "coffee"]
    assert [walk["steps"] for walk in found["walks"]] == [1, 1, 2, 1]
    made = bent()
    x0, x1 = (
        made.preprocess(
            image.resize((16, 16), Image.Resampling.BICUBIC, box=((w - h) / 2, 0, (w + h) / 2, h))
        ).double()
        for image in (ls.zoo.photo(name).image for name in ("cat", "coffee"))
        for w, h in [image.size]
    )
    op = ls.LinearInterpreter(made.model.double(), x0)
    level = 255 * (x1 - x0).square().mean().sqrt().item()
    coffee = found["walks"][3]
    assert coffee["end"] == pytest.approx(level)
    region = ls.region(op, (x1 - x0) / level)
    assert coffee["first"]["mean"] == pytest.approx(region.high)
    assert coffee["first_backward"]["mean"] == pytest.approx(-region.low)
    assert coffee["units"][0][0]["place"] == list(region.ahead[0].place)
    drift = ls.drift(op, (x1 - x0) / level, coffee["t"])
    assert coffee["relative_error"]["mean"] == pytest.approx(drift.relative.tolist(), abs=1e-9)
    assert coffee["flipped"]["mean"] == pytest.approx(drift.share.tolist())


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("bent", "decisions (exact)"),
        ("scores", "decisions (exact)"),
        ("tiny", "instance_norm"),
        ("smooth", "0 decisions (measured"),
    ],
)
def test_what_is_printed_and_drawn(model, words, here, capsys):
    out = run(capsys, "--model", model)
    assert words in out and len(out.splitlines()) == 9
    assert out.splitlines()[-1] == "picture: linscope-region/region.png"
    with Image.open(here / "linscope-region" / "region.png") as image:
        image.load()
        assert image.width > 1000


def test_directions_that_are_asked_for(here, capsys):
    ls.zoo.photo("rocket").image.resize((40, 30)).save(here / "mine.png")
    arguments = ["--model", "bent", "--direction", "v3", "--direction", "mine.png", "--json"]
    found = json.loads(run(capsys, *arguments, "--image", "coffee"))
    assert [walk["direction"] for walk in found["walks"]] == ["v3", "mine.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--direction", "v99"], "eigen-inputs are v1"),
        (["--direction", "nobody.png"], "'nobody.png' is neither an image file nor a photo"),
        (["--direction", "cat"], "cat is the network's own input"),
        (["--draws", "1"], "--draws wants 2 ... 64, was given 1"),
        (["--points", "2"], "--points wants 3 ... 100"),
        (["--most", "0"], "--most wants grey levels above 0"),
    ],
)
def test_what_is_refused(arguments, words, here, capsys):
    assert words in refused([*QUICK, "--model", "bent", *arguments], here, capsys)
