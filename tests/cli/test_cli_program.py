"""`--save` and `--program`: a frozen network in a file, in place of a network and a photo."""

import json

import pytest
from classifiers import classifier
from commands import in_zoo, refused, tiny
from PIL import Image

import linscope_cuda as ls
from linscope_cuda import cli


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    in_zoo(monkeypatch, tiny=tiny, classifier=classifier)
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((40, 30), 60).convert("RGB").save("photo.png")
    return tmp_path


def numbers(capsys, *arguments):
    assert cli.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def saved(capsys):
    """What `fields` says of a network that it saved."""
    system = ("--model", "tiny", "--image", "photo.png", "--size", "16")
    return numbers(capsys, "fields", *system, "--save", "one.linscope")


def test_fields_of_a_program_are_those_of_the_network(saved, capsys):
    found = numbers(capsys, "fields", "--program", "one.linscope", "--out", "again")
    (before,), (after,) = saved["systems"], found["systems"]
    assert found["photo"] == "the x0 of one.linscope"
    assert before.pop("system") == "tiny" and after.pop("system") == "Sequential"
    assert before == after


def test_other_commands_take_a_program(saved, capsys):
    certified = numbers(capsys, "certify", "--program", "one.linscope")
    assert certified["ok"] and certified["dtype"] == "float32" and certified["policy"] == "paper"
    assert cli.main(["certify", "--program", "one.linscope"]) == 0
    assert "frozen:" not in capsys.readouterr().out
    assert len(numbers(capsys, "svd", "-k", "2", "--program", "one.linscope")["systems"]) == 1


def test_votes_save_their_classifier(here, capsys):
    system = ["--model", "classifier", "--image", "photo.png", "--size", "16"]
    numbers(capsys, "votes", *system, "--save", "scores.linscope")
    assert ls.load("scores.linscope").output.dim() == 2
    said = refused(["svd", "--program", "scores.linscope"], here, capsys)
    assert "one from a picture to a picture is wanted" in said


@pytest.mark.parametrize(
    "more",
    [
        *(["--model", "tiny"], ["--image", "cat"], ["--size", "16"], ["--policy", "taylor"]),
        *(["--dtype", "float64"], ["--save", "other.linscope"]),
    ],
)
def test_a_program_stands_alone(saved, here, capsys, more):
    said = refused(["fields", "--program", "one.linscope", *more], here, capsys)
    assert f"frozen already: {more[0]} is not for it" in said


def test_refusals(here, capsys):
    assert "no program at none" in refused(["certify", "--program", "none"], here, capsys)
    said = refused(["certify", "--program", "photo.png"], here, capsys)
    assert "damaged or no program" in said
    said = refused(["certify", "--save", "none/one"], here, capsys)
    assert "there is no folder 'none'" in said
    two = ["--model", "tiny", "--policy", "paper", "--policy", "taylor"]
    assert "several were given" in refused(["fields", *two, "--save", "one"], here, capsys)


def test_a_network_that_cannot_be_saved(here, capsys, monkeypatch):
    def no(*_):
        raise ValueError("a constant has no place in a file")

    monkeypatch.setattr("linscope_cuda.frozen.program_file.written", no)
    arguments = ["certify", "--model", "tiny", "--size", "16", "--save", "one.linscope"]
    assert "one.linscope cannot be written: a constant" in refused(arguments, here, capsys)


@pytest.mark.parametrize("command", ["tour", "ledger", "votes", "selftest", "info"])
def test_commands_without_a_place_for_it(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--program", "one.linscope"])
    assert "unrecognized arguments: --program" in capsys.readouterr().err
