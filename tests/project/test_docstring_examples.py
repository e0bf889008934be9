"""The examples of the docstrings, run with a small frozen network, its x0 and its files."""

import doctest
import io
from contextlib import redirect_stdout
from functools import partial

import pytest
import scipy.sparse.linalg
import torch
from public_names import INNER, MEMBERS, NAMED
from torch import nn

import linscope_cuda as ls
from linscope_cuda.rules import table

# What a class inherits is run once.
_ONCE = {text: name for name, text in reversed({**NAMED, **INNER, **MEMBERS}.items())}
EXAMPLES = {
    name: examples
    for text, name in reversed(_ONCE.items())
    if (examples := doctest.DocTestParser().get_examples(text))
}
# About scores; all others are shown on a network from a picture to a picture of the same size.
OF_A_CLASSIFIER = {"fgsm", "Attack", "pixel_discussion", "pixel_votes"}
NEEDS = {"sweep": "zarr", "open_sweep": "zarr", "Sweep": "zarr", "explore": "anywidget"}
NEEDS |= {"to_pylops": "pylops"}


class Pictures(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)
        )

    def forward(self, x):
        for layer in (self.layer1, self.layer2, self.layer3):
            x = torch.relu(layer(x))
        return self.layer4(x) + x.mean((2, 3), keepdim=True)


def classifier():
    convolution = nn.Conv2d(3, 8, 9, stride=9)
    return nn.Sequential(
        convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1000)
    )


@pytest.fixture
def scope(request, tmp_path, monkeypatch):
    name = request.node.callspec.params["name"]
    on_cuda = name.endswith(".capture")
    if on_cuda and not torch.cuda.is_available():
        pytest.skip("captures CUDA graphs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(table, "RULES", dict(table.RULES))  # for a rule of the example's own
    model, size = (classifier(), 227) if name in OF_A_CLASSIFIER else (Pictures(), 32)
    device = "cuda" if on_cuda else "cpu"
    x0, x1, x = torch.randn(3, 1, 3, size, size, device=device)
    op = ls.LinearInterpreter(model.eval().to(device), x0)
    u, v = torch.randn_like(op.output), torch.randn_like(x0)
    scope = {"ls": ls, "torch": torch, "scipy": scipy, "model": model, "op": op}
    scope |= {"x0": x0, "x1": x1, "x": x, "u": u, "v": v}
    scope |= vars(ls.zoo) if name.startswith("zoo.") else vars(ls.ops)
    if name.endswith(".to_pandas"):
        pytest.importorskip("pandas")
    if name in NEEDS:
        scope[NEEDS[name]] = pytest.importorskip(NEEDS[name])
    op.save("cat.linscope")
    op.tape.save("cat.tape")
    if name == "open_sweep":
        ls.sweep(op, "rows.zarr", "rows")
    return scope


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(name, scope):
    for example in EXAMPLES[name]:
        if doctest.SKIP in example.options:
            continue
        shown = io.StringIO()
        with redirect_stdout(shown):
            exec(compile(example.source, f"<{name}>", "single"), scope)
        if example.want:
            assert shown.getvalue().split() == example.want.split(), example.source
