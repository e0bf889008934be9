"""A language model as its authors write it: under "paper" the rows of F are the gradients of a copy
with its norms, attention weights and gates detached by hand.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import linscope_cuda as ls

WIDTH, HEADS, LENGTH = 16, 4, 5


class Norm(nn.Module):
    """In float32, as it is usual."""

    def __init__(self, hold):
        super().__init__()
        self.weight, self.hold = nn.Parameter(torch.rand(WIDTH) + 0.5), hold

    def forward(self, x):
        h = x if self.hold else x.to(torch.float32)
        scale = torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * (h * (scale.detach() if self.hold else scale)).to(x.dtype)


def turned(x: Tensor) -> Tensor:
    """By its position, two features at a time."""
    angle = torch.arange(LENGTH, dtype=x.dtype)[:, None] * torch.tensor([1.0, 0.1], dtype=x.dtype)
    cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
    halves = torch.cat((-x[..., 2:], x[..., :2]), -1)
    return x * cos + halves * sin


class Block(nn.Module):
    def __init__(self, hold, fused):
        super().__init__()
        self.hold, self.fused = hold, fused
        self.norms = nn.ModuleList([Norm(hold), Norm(hold)])
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate, self.up = (nn.Linear(WIDTH, 24, bias=False) for _ in range(2))
        self.down = nn.Linear(24, WIDTH, bias=False)

    def attended(self, x):
        parts = self.qkv(x).view(len(x), LENGTH, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        q, k, v = turned(parts[0]), turned(parts[1]), parts[2]
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(2, 3) / 2
            least = torch.finfo(scores.dtype).min
            mask = torch.full((LENGTH, LENGTH), least, dtype=scores.dtype).triu(1)
            shares = torch.softmax(scores + mask, -1)
            y = (shares.detach() if self.hold else shares) @ v
        return self.out(y.transpose(1, 2).reshape(x.shape))

    def forward(self, x):
        x = x + self.attended(self.norms[0](x))
        h = self.norms[1](x)
        gate = F.silu(self.gate(h))
        return x + self.down((gate.detach() if self.hold else gate) * self.up(h))


class Model(nn.Module):
    def __init__(self, hold=False, fused=False):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, WIDTH)
        self.blocks = nn.Sequential(*(Block(hold, fused) for _ in range(3)))
        self.norm, self.head = Norm(hold), nn.Linear(WIDTH, 11, bias=False)

    def forward(self, ids=None, embeds=None):
        x = self.embed(ids) if embeds is None else embeds
        return self.head(self.norm(self.blocks(x)))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("by_name", [False, True])
def test_rows_are_gradients_of_a_copy_that_was_detached_by_hand(fused, by_name):
    model, by_hand = Model(fused=fused).double().eval(), Model(hold=True).double().eval()
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    x0 = by_hand.embed(ids).detach()
    if by_name:
        op = ls.LinearInterpreter(model, {"embeds": x0})
    else:
        op = ls.LinearInterpreter(model, ids, at="embed")
    assert not op.residual.any(), "no bias, no residual"
    assert (op.filter(op.x0) - op.output).norm() <= 1e-13 * op.output.norm()
    J = torch.autograd.functional.jacobian(lambda x: by_hand(embeds=x), x0).reshape(op.shape)
    assert (op.todense() - J).norm() <= 1e-12 * J.norm()
    assert (op.output - by_hand(embeds=x0)).norm() <= 1e-12 * op.output.norm()
    assert op.certify().ok
