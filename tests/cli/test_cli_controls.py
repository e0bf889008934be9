"""`linscope controls`: what it writes, prints and refuses."""

import io
import json

import pytest
import torch
from classifiers import classifier, pictures
from commands import in_zoo, refused
from PIL import Image
from torch import nn

import linscope_cuda as ls
from linscope_cuda import cli
from linscope_cuda.study import attributions
from linscope_cuda.study.attributions import METHODS, Evidence, area, blank, curve, map_of
from linscope_cuda.study.controls import SHARES
from linscope_cuda.zoo import Network, Preprocess


def one_score():
    head = nn.Flatten(), nn.Linear(3 * 16 * 16, 1)
    return Network(nn.Sequential(*head).eval(), Preprocess((16, 16)), None, "made for a test")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    in_zoo(monkeypatch, classifier=classifier, one=one_score)
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "photos")
    return tmp_path


QUICK = ["controls", "--model", "classifier", "--images", "photos", "--patch", "4"]


def run(capsys, *arguments):
    assert cli.main([*QUICK, *arguments]) == 0
    return capsys.readouterr().out


def test_json_equals_recomputation(here, capsys):
    found = json.loads(run(capsys, "--json", "--dtype", "float64", "--out", "new"))
    assert json.loads((here / "new" / "controls.json").read_text()) == found
    assert min(Image.open(io.BytesIO((here / "new" / "controls.png").read_bytes())).size) > 500
    assert found["photos"] == 3 and list(found["methods"]) == attributions.available()
    network = classifier()
    model = network.model.double()
    paths = sorted((here / "photos").rglob("*.png"))
    values = []
    for path in paths:
        x0 = network.preprocess(ls.zoo.photo(str(path)).image).double()
        label = int(model(x0).argmax())
        drawn = map_of("discussion", Evidence(model, x0, label))
        values.append(curve(model, label, x0, blank(x0), drawn, SHARES, 4))
    of = found["methods"]["discussion"]
    assert of["deletion"]["curve"] == pytest.approx(torch.stack(values).mean(0).tolist(), rel=1e-6)
    areas = area(torch.stack(values), SHARES)
    assert of["deletion"]["area"] == pytest.approx(areas.mean().item(), rel=1e-6)
    assert of["deletion"]["deviation"] == pytest.approx(areas.std().item(), rel=1e-6)
    likeness = found["methods"]["centre"]["likeness"]
    assert likeness == pytest.approx([1.0] * len(found["modules_shuffled"]))
    assert found["methods"]["centre"]["better_than"] is None
    assert set(of["better_than"]["insertion"]) == set(METHODS) - {"discussion", "row times input"}
    assert list(found["parts"]) == list(ls.study.controls.CASES)


def test_the_outline_says_what_is_better_than_what(capsys):
    said = run(capsys)
    assert "classifier, 3 photos, patches of 4 pixels" in said
    for method in ("row times input", "discussion"):
        for which in ("deletion", "insertion"):
            (line,) = [t for t in said.splitlines() if f"{method}, {which}:" in t and "random" in t]
            assert any(w in line for w in ("better than", "worse than", "not told from"))
    assert "shuffled weights" in said and "controls.png" in said


def test_one_photo_tells_nothing_from_anything(here, capsys):
    folder = here / "one"
    folder.mkdir()
    ls.zoo.photo("cat").image.save(folder / "cat.png")
    said = run(capsys, "--images", "one")
    assert "1 photo," in said and "better than" not in said and "worse than" not in said


def test_without_captum(capsys, monkeypatch):
    monkeypatch.setattr(attributions.importlib.util, "find_spec", lambda name: None)
    assert cli.main([*QUICK, "--json"]) == 0
    said = capsys.readouterr()
    own = ["row times input", "discussion", "centre", "random"]
    assert list(json.loads(said.out)["methods"]) == own
    assert "without Captum (pip install captum) integrated gradients and saliency" in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--patch", "0"], "--patch wants 1 ... 64"),
        (["--cascaded", "0"], "--cascaded wants 1 ... 1000"),
        (["--images", "nowhere"], "is not a folder of images"),
        (["--model", "one"], "gives one score"),
        (["--model", "pixelshuffle4_x3"], "gives no scores"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(arguments, words, capsys, here):
    said = refused([*QUICK, *arguments, "--out", "new"], here, capsys)
    assert words in said
