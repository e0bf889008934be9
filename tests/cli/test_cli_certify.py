"""`linscope certify`: its verdict, and the call that it blames."""

import json

import pytest
import torch
from commands import in_zoo, tiny
from PIL import Image

import linscope_cuda as ls
from linscope_cuda import cli

IMPOSTORS = """
import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

class Hidden(nn.Module):
    def forward(self, x):
        h = 2 * x
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            sine = h.sin()
        return h + sine

def hidden():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Hidden(), nn.Conv2d(4, 2, 3))

class Broken(nn.Module):
    def forward(self, x):
        return torch.relu(x) + float("nan")
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    in_zoo(monkeypatch, tiny=tiny)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "impostors.py").write_text(IMPOSTORS)
    return tmp_path


QUICK = ["certify", "--model", "tiny", "--size", "16"]


@pytest.mark.parametrize("policy", ["paper", "centered", "taylor"])
def test_a_network_of_rules_is_certified(policy, here, capsys):
    options = ["--policy", policy, "--dtype", "float64", "--json"]
    assert cli.main([*QUICK, *options]) == 0
    found = json.loads(capsys.readouterr().out)
    square = ls.zoo.photo("cat").image.resize(
        (16, 16), Image.Resampling.BICUBIC, box=(75.5, 0, 375.5, 300)
    )
    x0 = tiny().preprocess(square).double()
    op = ls.LinearInterpreter(tiny().model.double(), x0, policy)
    assert found["errors"] == op.certify().errors
    assert found["ok"] and found["blamed"] is None and found["policy"] == policy
    assert max(found["errors"].values()) <= found["tolerance"] < 1e-11
    assert found["frozen"] == {
        "torch.nn.functional.instance_norm": 1,
        "torch.nn.functional.relu": 1,
    }
    assert [path.name for path in here.iterdir()] == ["impostors.py"]


def test_the_table(capsys):
    assert cli.main(QUICK) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiny on chelsea, float32, policy paper"
    assert lines[1].startswith("input: the centred 300 x 300 of 451 x 300 pixels, as ")
    assert lines[2] == "frozen: 1 instance_norm, 1 relu"
    assert sum(line.startswith("ok  ") for line in lines) == 6
    assert "tolerance" in lines[-2] and lines[-1] == "certified"


def test_an_impostor_is_not_certified_and_its_module_is_named(capsys):
    model = ["certify", "--model", "impostors:hidden", "--size", "16", "--dtype", "float64"]
    assert cli.main([*model, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"] and max(found["errors"].values()) > 0.01
    assert found["blamed"]["module"] == "2"
    assert cli.main(model) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("NO  y of x0 - 1.5 a, re-enacted") for line in lines)
    assert lines[-2].startswith("first departs at ") and lines[-1] == "not certified"


def test_a_network_that_gives_nan_is_not_certified(capsys):
    assert cli.main(["certify", "--model", "impostors:Broken", "--size", "16"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "not certified"


def test_a_network_without_nonlinear_functions(capsys, monkeypatch):
    made = ls.zoo.Network(torch.nn.Conv2d(3, 2, 3).eval(), tiny().preprocess, None, "for a test")
    in_zoo(monkeypatch, affine=lambda: made)
    assert cli.main(["certify", "--model", "affine", "--size", "16"]) == 0
    assert "frozen: nothing, the network is affine" in capsys.readouterr().out
