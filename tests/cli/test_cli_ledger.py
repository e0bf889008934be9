"""`linscope ledger` and `linscope votes`: what they write, print and refuse."""

import csv
import json

import pytest
import torch
from classifiers import CLASSES, classifier, pictures
from commands import everything, in_zoo, network, refused
from PIL import Image
from torch import nn

import linscope_cuda as ls
from linscope_cuda import cli
from linscope_cuda.study.survey import FromPixels, accounts, raw_pixels
from linscope_cuda.zoo import Network


def silent() -> Network:
    """Every score is 0."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4))
    nn.init.zeros_(model[1].weight), nn.init.zeros_(model[1].bias)
    return network(model, size=(8, 8))


def strict() -> Network:
    """Takes 4 x 4 pixels only, though its preprocessing says otherwise."""
    return network(nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), size=(8, 8))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    in_zoo(monkeypatch, classifier=classifier, silent=silent, strict=strict)
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "crops")
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "ledger.png").write_text("good")
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("no image")
    return tmp_path


@pytest.fixture
def spoilt(here):
    """The crops, and among them files that are no whole picture."""
    whole = (here / "crops" / "crop 2.png").read_bytes()
    (here / "crops" / "a note.jpg").write_text("no image")
    (here / "crops" / "crop 1 half.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (1, 1)).save(here / "crops" / "deeper" / "dot.png")
    return {
        "crops/a note.jpg": "is not an image",
        "crops/crop 1 half.png": "is not a whole image",
        "crops/deeper/dot.png": "is 1 x 1 pixels",
    }


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


LEDGER = ["ledger", "--model", "classifier", "--images", "crops", "--dtype", "float64"]
VOTES = ["votes", "--model", "classifier", "--image", "crops/crop 1.png", "--dtype", "float64"]


def test_ledger_of_a_folder_equals_recomputation(here, capsys):
    assert cli.main([*LEDGER, "--out", "good", "--fgsm", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((here / "good" / "ledger.json").read_text()) == found
    assert sorted(p.name for p in (here / "good").iterdir()) == found["files"]
    made = classifier()
    model = FromPixels(made).double()
    files = ["crops/crop 1.png", "crops/crop 2.png", "crops/deeper/crop 0.png"]
    pixels = [raw_pixels(made, Image.open(here / f)).double() for f in files]
    for i, epsilon in enumerate((0, 8)):
        want = [accounts(model, x, [8.0])[i] for x in pixels]
        ledger = found["ledgers"][i]
        assert ledger["fgsm"] == epsilon and ledger["largest_error"] < 1e-12
        for name, share in ledger["shares"].items():
            mean = sum(account.shares()[name] for account in want) / 3
            assert share["mean"] == pytest.approx(mean)
        for name, entry in ledger["entries"].items():
            mean = sum(account.parts.get(name, 0) / account.score for account in want) / 3
            assert entry["mean"] == pytest.approx(mean)
        assert sum(entry["mean"] for entry in ledger["entries"].values()) == pytest.approx(1)
    photos = rows(here / "good" / "photos.csv")
    assert [row["photo"] for row in photos[::2]] == ["crop 1", "crop 2", "crop 0"]
    assert {row["fgsm"] for row in photos} == {"0.0", "8.0"}
    assert all(row["name"] == CLASSES[int(row["top"])] for row in photos)
    parts = rows(here / "good" / "contributions.csv")
    for row in photos:
        mine = [p for p in parts if (p["photo"], p["fgsm"]) == (row["photo"], row["fgsm"])]
        assert sum(float(p["contribution"]) for p in mine) == pytest.approx(float(row["score"]))
    assert len(rows(here / "good" / "ledger.csv")) == len(found["ledgers"][0]["entries"])
    for name in ("ledger.png", "ledger-fgsm-8.png"):
        with Image.open(here / "good" / name) as image:
            image.load()


def test_ledger_says_each_definition(capsys):
    assert cli.main([*LEDGER, "--out", "new"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("classifier, best score of 3 photos: the residual's share")
    assert "r / y, the input is normalised pixels" in out
    assert "|r| / (|r| + |F x0|), the input is raw pixels" in out


def test_ledger_reads_one_photo_at_a_time(monkeypatch):
    """Memory must not grow with the photos: each is let go before the next is read."""
    import weakref

    read = cli.photos.load_photo
    alive = weakref.WeakSet()

    class Held:
        def __init__(self, photo):
            self.image, self.label, self.name = photo.image, photo.label, photo.name
            alive.add(self)

    def counted(name):
        assert len(alive) <= 1
        return Held(read(name))

    monkeypatch.setattr(cli.photos, "load_photo", counted)
    assert cli.main([*LEDGER, "--out", "new"]) == 0


def test_many_entries_are_drawn_as_columns(here, monkeypatch):
    monkeypatch.setattr("linscope_cuda.report.charts.MOST_ROWS", 3)
    assert cli.main([*LEDGER, "--out", "new", "--fgsm", "4"]) == 0
    with Image.open(here / "new" / "ledger.png") as image:
        assert image.width > image.height


def test_votes_equal_recomputation(here, capsys):
    assert cli.main([*VOTES, "--labels", "5", "--out", "new", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    made = classifier()
    x0 = made.preprocess(Image.open(here / "crops" / "crop 1.png")).double()
    op = ls.LinearInterpreter(made.model.double(), x0)
    counts = ls.pixel_votes(op).flatten().bincount(minlength=5)
    assert found["pixels"] == 20 * 16 == sum(r["votes"] for r in found["labels"]) + found["unseen"]
    votes = {row["label"]: row["votes"] for row in found["labels"]}
    first = ls.pixel_discussion(op, range(5)).sum(1).amax(0)
    assert found["unseen"] == (first == 0).sum()
    assert [votes.get(k, 0) for k in range(1, 5)] == counts[1:].tolist()
    assert votes.get(0, 0) == counts[0] - found["unseen"]
    ranks = {row["label"]: row["rank"] for row in found["labels"]}
    assert ranks[op.output[0].argmax().item()] == 1
    assert sorted(p.name for p in (here / "new").iterdir()) == found["files"]
    table = rows(here / "new" / "votes.csv")
    assert [row["name"] for row in table] == [row["name"] for row in found["labels"]]
    for name in found["files"]:
        if name.endswith(".png"):
            with Image.open(here / "new" / name) as image:
                image.load()


def test_votes_prints_the_popular_labels(capsys):
    assert cli.main([*VOTES, "--out", "new", "--size", "24", "--labels", "2", "--absolute"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("classifier on crop 1: 576 pixels vote")
    assert any(name in out for name in CLASSES)


def test_files_that_are_no_picture_are_named_and_left_out(here, spoilt, capsys):
    assert cli.main([*LEDGER, "--out", "new", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["photos"] == 3 and list(found["unreadable"]) == list(spoilt)
    warnings = [line for line in said.err.splitlines() if line.startswith("linscope: left out: ")]
    assert len(warnings) == 3
    for line, (file, words) in zip(warnings, spoilt.items(), strict=True):
        assert f"'{file}' {words}" in line and words in found["unreadable"][file]
    for file in spoilt:
        (here / file).unlink()
    assert cli.main([*LEDGER, "--out", "good", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ledgers"] == found["ledgers"]


def test_how_many_were_left_out_is_said_at_the_end(spoilt, capsys):
    assert cli.main([*LEDGER, "--out", "new"]) == 0
    out = capsys.readouterr().out
    assert "best score of 3 photos" in out and "left out: 3 that cannot be used" in out


def test_a_folder_without_a_single_whole_picture(here, spoilt, capsys):
    for path in [*(here / "crops").rglob("crop [012].png")]:
        path.unlink()
    before = everything(here)
    assert cli.main([*LEDGER, "--out", "good"]) == 2
    said = capsys.readouterr()
    assert "none of the image files in 'crops' can be used" in said.err and said.out == ""
    assert everything(here) == before and not list(here.rglob(".linscope-*"))


def test_the_first_photo_s_network_is_checked_even_if_files_before_it_are_not_whole(
    spoilt, monkeypatch
):
    checked, accounts = [], cli.ledger.accounts

    def told(*args, check, **options):
        checked.append(check)
        return accounts(*args, check=check, **options)

    monkeypatch.setattr(cli.ledger, "accounts", told)
    assert cli.main([*LEDGER, "--out", "new"]) == 0
    assert checked == [True, False, False]


def test_ledger_at_a_size_and_by_a_policy(capsys):
    assert cli.main([*LEDGER, "--out", "new", "--size", "32", "--policy", "taylor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "stretched to 32 x 32" in found["preprocess"] and found["policy"] == "taylor"


BAD = {
    "silent": (LEDGER, ["--model", "silent"], "scores every one of these photos with 0"),
    "wrong size": (LEDGER, ["--model", "strict"], "strict cannot take 8 x 8 pixels"),
    "missing folder": (LEDGER, ["--images", "missing"], "'missing' is not a folder"),
    "file as folder": (LEDGER, ["--images", "note.txt"], "'note.txt' is not a folder"),
    "empty folder": (LEDGER, ["--images", "empty"], "holds no image files"),
    "two sources": (LEDGER, ["--photos", "skimage"], "give one of them"),
    "no attack": (LEDGER, ["--fgsm", "0"], "--fgsm wants grey levels above 0"),
    "strong attack": (LEDGER, ["--fgsm", "300"], "--fgsm wants grey levels above 0"),
    "votes: wrong size": (VOTES, ["--model", "strict"], "strict cannot take 8 x 8 pixels"),
    "votes: labels": (VOTES, ["--labels", "9"], "--labels wants 1 ... 8, was given 9"),
}


@pytest.mark.parametrize("case", BAD)
def test_options_of_a_command_s_own(case, here, capsys):
    command, options, message = BAD[case]
    assert message in refused([*command, "--out", "good", *options], here, capsys)


def test_an_unknown_set_of_photos(capsys):
    assert cli.main(["ledger", "--model", "classifier", "--photos", "nope"]) == 2
    assert "there are no photos 'nope'" in capsys.readouterr().err


@pytest.mark.network
def test_ledger_of_the_twenty_photos(here, capsys):
    assert cli.main(["ledger", "--photos", "imagenet20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    shares = found["ledgers"][0]["shares"]
    assert found["photos"] == 20 and found["network"] == "squeezenet1_1"
    assert shares["normalised r/y"]["mean"] == pytest.approx(0.166, abs=0.005)
    assert shares["raw r/y"]["mean"] == pytest.approx(0.556, abs=0.005)
    assert torch.tensor(found["ledgers"][0]["sum"]).sub(1).abs() < 1e-5


def test_quiet_leaves_the_results_alone(here, capsys):
    (here / "crops" / "crop 7.png").write_bytes(b"half a picture")
    for flag, notes in (("-q", 0), ("--json", 1)):
        assert cli.main([*LEDGER, flag, "--out", "new"]) == 0
        said = capsys.readouterr()
        assert said.out and said.err.count("linscope: left out: ") == notes
        assert notes or not said.err


def test_every_command_takes_quiet():
    for command in cli.COMMANDS:
        assert cli._parser().parse_args([command.name, "--quiet"]).quiet


OF = ["ledger", "--model", "classifier", "--image", "crops/crop 1.png", "--dtype", "float64"]


def test_ledger_of_a_module_equals_recomputation(here, capsys):
    options = ["--of", "3", "--channels", "3", "--label", "2", "--out", "good", "--json"]
    assert cli.main([*OF, *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((here / "good" / "ledger.json").read_text()) == found
    made = classifier()
    x0 = made.preprocess(Image.open(here / "crops" / "crop 1.png")).double()
    op = ls.LinearInterpreter(made.model.double(), x0)
    want = ls.ledger(op, [2], of="3")
    channels = want.channels()[0]
    assert found["shape"] == list(want.activation.shape) and found["count"] == 8
    assert found["score"] == pytest.approx(op.output[0, 2].item())
    assert found["sum"] == pytest.approx(found["score"])
    assert found["through"] == pytest.approx(want.through.item())
    assert found["past"]["input"] == 0 and found["name"] == CLASSES[2]
    assert found["past"]["offsets"] == pytest.approx(
        dict(zip(want.rest.names, want.rest.values[:, 0].tolist(), strict=True))
    )
    order = channels.abs().argsort(descending=True)[:3].tolist()
    assert [row["channel"] for row in found["strongest"]] == order
    share = channels[order].abs().sum() / channels.abs().sum()
    assert found["magnitude_of_strongest"] == pytest.approx(share.item())
    table = rows(here / "good" / "channels.csv")
    assert [float(row["contribution"]) for row in table] == pytest.approx(channels.tolist())
    places = [[float(v) for v in list(row.values())[1:]] for row in rows(here / "good/places.csv")]
    torch.testing.assert_close(torch.tensor(places).double(), want.places()[0], rtol=1e-6, atol=0)
    with Image.open(here / "good" / "ledger.png") as image:
        image.load()


def test_ledger_of_several_modules_and_in_groups(here, capsys):
    assert cli.main([*OF, "--of", "0", "--of", "7", "--out", "new"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "crop 1: " in out[0] and out[0].endswith("; 2 modules")
    assert [line.split()[0] for line in out[2:4]] == ["0", "7"] and out[2].split()[1] == "0"
    assert [row["module"] for row in rows(here / "new" / "modules.csv")] == ["0", "7"]
    options = ["--of", "7", "--given", "--groups", "2", "--out", "new", "--json"]
    assert cli.main([*OF, *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "group" and len(found["strongest"]) == found["count"] == 2
    whole = found["through"] + found["past"]["input"] + sum(found["past"]["offsets"].values())
    assert whole == pytest.approx(found["score"]) and found["shape"] == [8]


BAD_OF = {
    "no module": (["--of", "conv1"], "classifier: there is no module 'conv1'; there are 0, 1, 2"),
    "no pattern": (["--of", "*.a"], "classifier: there is no module like '*.a'"),
    "no call": (["--of", "3", "--call", "1"], "classifier: call wants 0 ... 0 of module '3'"),
    "no dimension": (["--of", "7", "--dim", "2"], "dim wants 1 ... 1 of 7, was given 2"),
    "no groups": (["--of", "3", "--groups", "3"], "divides 8 channels, was given 3"),
    "channels": (["--of", "3", "--channels", "0"], "--channels wants 1 ... 60, was given 0"),
    "label": (["--of", "3", "--label", "5"], "--label wants 0 ... 4, was given 5"),
    "several": (["--of", "3", "--of", "7", "--dim", "1"], "are about one module"),
    "photos": (["--of", "3", "--photos", "skimage"], "--of is about one photo, --image"),
    "attacked": (["--of", "3", "--fgsm", "2"], "--of is about one photo, --image"),
    "alone": (["--photos", "skimage"], "--image is about one photo, and wants --of"),
}


@pytest.mark.parametrize("case", BAD_OF)
def test_what_has_no_ledger_inside_is_refused(case, here, capsys):
    options, message = BAD_OF[case]
    assert message in refused([*OF, "--out", "good", *options], here, capsys)
