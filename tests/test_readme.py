"""The examples of the README and of docs/ run as they stand, but for the download of weights."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linscope_cuda as ls

ROOT = Path(__file__).parents[1]


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_example_on_your_own_network():
    pytest.importorskip("torchvision", reason="the README's example takes its network from there")
    (example,) = examples("README.md")
    scope: dict = {}
    exec(example.replace('weights="DEFAULT"', "weights=None"), scope)
    op, x0 = scope["op"], scope["x0"]
    assert scope["row"].shape == x0.shape and scope["column"].shape == (1, 1000)
    error = (op.filter(x0) + scope["r"] - scope["y0"]).norm() / scope["y0"].norm()
    assert error < 1e-5
    assert scope["triplets"].S.shape == (4,)


def test_the_examples_about_networks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    x0 = torch.randn(1, 3)
    scope = {"torch": torch, "ls": ls, "F": F, "model": model, "x0": x0}
    scope |= {"op": ls.LinearInterpreter(model, x0), "task": torch.sum}
    try:
        for example in examples("docs/networks.md"):
            exec(example, scope)
    finally:
        ls.rules.RULES.pop(torch.sinc, None)
    assert (tmp_path / "cat.tape").is_file() and len(list((tmp_path / "tapes").iterdir())) == 1
    assert model[0].weight.grad is not None
