"""No tensor is made on a wrong device: tensors without data on a second GPU, where there is none.

Torch refuses to mix their devices as it does with real ones. What they cannot do is run backward.
"""

import pytest
import torch
from networks import INPUTS, PIECEWISE, Gated
from test_cuda import scopes
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

import linscope_cuda as ls
from linscope_cuda.frozen import interpreter
from linscope_cuda.program.local import shapes

SECOND = torch.device("cuda", 1)


@pytest.fixture(autouse=True)
def without_data(monkeypatch):
    monkeypatch.setattr(interpreter, "_check", lambda *args: None)  # it looks at x0's values
    axes_of = shapes.axes_of

    def with_data(step):
        with unset_fake_temporarily():
            return axes_of(step)

    monkeypatch.setattr(shapes, "axes_of", with_data)  # numbers about a function, on the CPU
    with FakeTensorMode():
        yield


def everything(model: nn.Module, x0: torch.Tensor, storage: str) -> list[torch.Tensor]:
    op = ls.LinearInterpreter(model, x0, storage=storage, check=False)
    return [op.output, op.residual, op.filter(x0), op(x0), op.columns([0])]


def test_operators():
    for batch in (torch.empty(3, 8, 12, 14), torch.empty(3, 8, 12, 14).half()):
        assert all(t.device == SECOND for t in scopes(batch.to(SECOND)))


@pytest.mark.parametrize("storage", ["tape", "none"])
@pytest.mark.parametrize("kind", [*PIECEWISE, Gated])
def test_networks(kind, storage):
    with SECOND:
        model, x0 = kind().eval().requires_grad_(False), torch.empty(INPUTS[kind])
    assert all(t.device == SECOND for t in everything(model, x0, storage))


def test_a_forgotten_device_shows():
    class Forgets(nn.Module):
        def forward(self, x):
            return torch.relu(x) + torch.ones(4)

    with pytest.raises(RuntimeError, match=r"same device|two different devices"):
        everything(Forgets(), torch.empty(1, 4, device=SECOND), "tape")
