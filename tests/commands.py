"""What the tests of the command line share: its small networks, and how a refusal must look."""

import torch
from torch import nn

from linscope_cuda import cli
from linscope_cuda.zoo import Network, weights
from linscope_cuda.zoo.preprocess import Preprocess


def network(model: nn.Module, **preprocess) -> Network:
    return Network(model.eval(), Preprocess(divisor=255, **preprocess), None, "made for a test")


def tiny() -> Network:
    """Makes a picture of twice the size."""
    torch.manual_seed(5)
    return network(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.InstanceNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
    )


class Calls(nn.Module):
    """A function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def in_zoo(monkeypatch, **made):
    """Networks under names of the zoo, for one test."""
    for name, make in made.items():
        monkeypatch.setitem(weights.NETWORKS, name, make)


def everything(folder):
    """Each file in a folder and in those in it, by path."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(arguments, here, capsys) -> str:
    """The sentence with which a command refuses, having printed and changed nothing."""
    before, entries = everything(here), sorted(here.rglob("*"))
    code = cli.main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    sentences = [line for line in said.err.splitlines() if line.strip()]
    assert len(sentences) == 1 and sentences[0].startswith("linscope: ")
    assert everything(here) == before and sorted(here.rglob("*")) == entries
    return sentences[0]
