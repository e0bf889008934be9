"""The README's example runs as it stands, but for the download of its weights."""

import re
from pathlib import Path

import pytest


def test_the_example_on_your_own_network():
    pytest.importorskip("torchvision", reason="the README's example takes its network from there")
    text = (Path(__file__).parents[1] / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    scope: dict = {}
    exec(example.replace('weights="DEFAULT"', "weights=None"), scope)
    op, x0 = scope["op"], scope["x0"]
    assert scope["row"].shape == x0.shape and scope["column"].shape == (1, 1000)
    error = (op.filter(x0) + scope["r"] - scope["y0"]).norm() / scope["y0"].norm()
    assert error < 1e-5
    assert scope["triplets"].S.shape == (4,)
