"""Ctrl-C and pipes that nobody reads, each in a process of its own: the signal is sent once that
process says that it waits at a known point.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from classifiers import pictures

import linscope_cuda as ls

# A user's network that, when it is made, lets one function of the package wait for the signal.
WAITING = """
import os, sys
from pkgutil import resolve_name
import torch
from torch import nn

place, _, condition = os.environ["WAIT"].partition(" if ")
holder, _, name = place.rpartition(".")
holder, calls = resolve_name(holder), 0

def wait(*args, function=getattr(holder, name), **options):
    global calls
    calls += 1
    if eval(condition):
        print("waiting", file=sys.stderr, flush=True)
        sys.stdin.read()
    return function(*args, **options)

setattr(holder, name, wait)

def picture():
    torch.manual_seed(5)
    first, last = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 12, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), last, nn.PixelShuffle(2))

def scores():
    torch.manual_seed(6)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 14 * 14, 9))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "waiting.py").write_text(WAITING)
    pictures(tmp_path / "crops")
    roots = [str(Path(ls.__file__).parents[1]), str(tmp_path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(roots))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def started(*arguments: str, **options) -> subprocess.Popen:
    pipe = subprocess.PIPE
    streams = {"stdin": pipe, "stdout": pipe, "stderr": pipe} | options
    # A test may be started where Ctrl-C is ignored; a command at a terminal is not.
    return subprocess.Popen(
        [sys.executable, *arguments],
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **streams,
    )


def stopped(monkeypatch, wait: str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command, interrupted where it waits."""
    monkeypatch.setenv("WAIT", wait)
    process = started("-m", "linscope_cuda", *arguments)
    assert process.stderr
    before = []
    while (line := process.stderr.readline()) != "waiting\n":
        assert line, "".join(before)
        before.append(line)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, "".join(before) + err


PICTURE = ["--model", "waiting:picture", "--size", "16"]
SCORES = ["--model", "waiting:scores", "--size", "16"]
REPORTED = "linscope_cuda.linalg.svd.lanczos._report"
SOME_DONE = f"{REPORTED} if args[2].done >= 1"


def test_a_tour_has_the_triplets_that_are_done(here, monkeypatch):
    code, out, err = stopped(monkeypatch, SOME_DONE, "tour", *PICTURE, "-k", "16", "--json")
    found = json.loads(out)["svd"]
    done = len(found["sigma"])
    assert code == 130 and 0 < done < 16
    assert (found["asked"], found["interrupted"]) == (16, True)
    assert err == f"linscope: stopped: {done} of 16 triplets; the page has these\n"
    page = (here / "linscope-tour" / "tour.html").read_text(encoding="utf-8")
    assert f"Stopped by hand, with {done} of the 16 triplets" in page
    assert page.count("<h3>") == done
    pictures = (here / "linscope-tour" / "pictures").glob("triplet-*-input.png")
    assert len(list(pictures)) == done


@pytest.mark.parametrize("command", ["tour", "svd"])
def test_without_a_triplet_nothing_is_written(command, here, monkeypatch):
    code, out, err = stopped(monkeypatch, f"{REPORTED} if True", command, *PICTURE, "-k", "5")
    assert (code, out) == (130, "")
    assert re.fullmatch(
        r"linscope: stopped: 0 of 5 triplets.*; nothing was written to linscope-\w+\n", err
    )
    assert not (here / f"linscope-{command}").exists()


def test_an_svd_goes_on_from_its_checkpoint(here, monkeypatch):
    arguments = ["svd", *PICTURE, "-k", "16", "--json", "--checkpoint", "state"]
    code, out, err = stopped(monkeypatch, SOME_DONE, *arguments)
    found = json.loads(out)
    (system,) = found["systems"]
    done = len(system["sigma"])
    assert code == 130 and 0 < done < 16
    assert found["stopped"] == f"{done} of 16 triplets of waiting:picture, lanczos"
    assert err == (
        f"linscope: stopped: {found['stopped']}; linscope-svd has what was done, and the same "
        "command goes on by state\n"
    )
    monkeypatch.setenv("WAIT", f"{REPORTED} if False")
    out, _ = started("-m", "linscope_cuda", *arguments).communicate()
    (whole,) = json.loads(out)["systems"]
    assert json.loads(out)["stopped"] is None and len(whole["sigma"]) == 16
    assert whole["sigma"][:done] == pytest.approx(system["sigma"], abs=2 * max(system["error"]))


def test_of_several_networks_those_are_drawn_that_are_done(here, monkeypatch):
    second = f"{REPORTED} if args[0].op.policy.default == 'taylor'"
    both = ["--policy", "paper", "--policy", "taylor"]
    code, out, err = stopped(monkeypatch, second, "svd", *PICTURE, "-k", "3", *both, "--json")
    found = json.loads(out)
    assert code == 130
    assert [system["system"] for system in found["systems"]] == ["waiting:picture, paper"]
    assert "stopped: 0 of 3 triplets of waiting:picture, taylor" in err


def test_a_sweep_says_how_far_it_is(here, monkeypatch):
    pytest.importorskip("zarr")
    wait = "linscope_cuda.study.store:Store.write if calls == 3"
    wanted = [*PICTURE, "--size", "32", "--stride", "2", "--json"]
    code, out, err = stopped(monkeypatch, wait, "sweep", *wanted)
    found = json.loads(out)
    done, blocks = found["blocks_done"], found["blocks"]
    assert code == 130 and not found["complete"] and 2 == done < blocks
    end = f"stopped: {done} of {blocks} blocks; linscope-sweep/rows.zarr has these"
    assert err.splitlines()[-1] == f"linscope: {end}; the same command goes on"
    assert ls.open_sweep("linscope-sweep/rows.zarr").done == done


def test_a_ledger_is_of_the_photos_that_are_done(here, monkeypatch):
    wait = "linscope_cuda.cli.ledger.accounts if calls == 3"
    code, out, err = stopped(monkeypatch, wait, "ledger", *SCORES, "--images", "crops", "--json")
    found = json.loads(out)
    count = len(list((here / "crops").rglob("*.png")))
    assert code == 130 and found["photos"] == 2 < count
    assert err == f"linscope: stopped: 2 of {count} photos; linscope-ledger has these\n"
    table = (here / "linscope-ledger" / "photos.csv").read_text().splitlines()
    assert len(table) == 1 + 2


@pytest.mark.parametrize(
    ("arguments", "wait", "said"),
    [
        (["ledger", *SCORES, "--images", "crops"], "cli.ledger.accounts", "0%, crop"),
        (["votes", *SCORES], "study.votes.one_hot", "0%, freezing"),
        (["fields", *PICTURE], "cli.fields.fields", "50%, fields of"),
        (["certify", *PICTURE], "frozen.interpreter.certify", "30%, measuring"),
        (["sweep", *PICTURE], "study.photos.LinearInterpreter", "0%, freezing"),
        (["tour", *PICTURE], "cli.tour.files", "80%, drawing"),
    ],
)
def test_elsewhere_nothing_is_written(arguments, wait, said, here, monkeypatch):
    before = sorted(here.iterdir())
    code, out, err = stopped(monkeypatch, f"linscope_cuda.{wait} if True", *arguments)
    assert (code, out) == (130, "")
    folder = arguments[0] != "certify" and f"linscope-{arguments[0]}"
    end = f"; nothing was written to {folder}" if folder else ""
    assert re.fullmatch(rf"linscope: stopped: {said}.*{end}\n", err), err
    assert sorted(path for path in here.iterdir() if path.name != "__pycache__") == before


def test_ctrl_c_while_the_package_is_imported():
    """Python says with each import that it is done; the package has many to go by then."""
    process = started("-X", "importtime", "-m", "linscope_cuda", "info")
    assert process.stderr
    while not re.search(r"\| +torch\._utils$", line := process.stderr.readline().rstrip()):
        assert line.startswith("import time:"), line
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.endswith("linscope: interrupted\n") and "Traceback" not in err


def test_another_program_that_imports_the_package_keeps_its_own_ctrl_c():
    shown = "import signal, linscope_cuda; print(signal.getsignal(2) is signal.default_int_handler)"
    out, _ = started("-c", shown).communicate()
    assert out == "True\n"


@pytest.mark.parametrize(
    ("flags", "arguments"), [([], ["info"]), (["-u"], ["info", "--json"]), ([], ["tour", "--help"])]
)
@pytest.mark.parametrize("both", [True, False])
def test_a_pipe_that_nobody_reads(flags, arguments, both, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    reading, writing = os.pipe()
    os.close(reading)
    error = {"stderr": writing} if both else {}
    process = started(*flags, "-m", "linscope_cuda", *arguments, stdout=writing, **error)
    os.close(writing)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 141 and not err
