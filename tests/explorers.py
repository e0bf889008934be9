"""A running `linscope explore`, and what a page of it shows, for the tests."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from classifiers import classifier

import linscope_cuda as ls
from linscope_cuda.study.system import EITHER, System, frozen

NETWORK, CLASSIFIER, SLOW = "pixelshuffle4_x3", "classifiers:classifier", "explorers:slow"
SIZE = 24
ENDED = 130  # the exit code of Ctrl-C
HASH = f"model={NETWORK}&photo=cat&size={SIZE}"
LABELS = f"model={CLASSIFIER}&photo=cat"
VIEWED = "linscope?.view && document.querySelector('.working').hidden"
# Views by their names: the address, and the answers that make all that is shown.
VIEWS = {
    "pixel": (f"{HASH}&pixel=30,41&pins=input,3,4", ("field",)),
    "input": (f"{HASH}&pixel=5,17&at=input&channel=1", ("field",)),
    "compare": (f"{HASH}&view=compare", ("field", "field2")),
    "spectrum": (f"{HASH}&view=spectrum&k=2&t=0.05", ("svd", "step")),
    "photo": (f"{HASH}&view=photo", ("photo", "parts")),
    "labels": (LABELS, ("label", "ledger", "column")),
    "row": (f"{LABELS}&show=row&at=input&pixel=7,9&channel=2", ("label", "ledger", "column")),
    "votes": (f"{LABELS}&show=votes", ("votes", "ledger", "column")),
    "scores": (f"{LABELS}&view=spectrum&k=2&t=0.5", ("svd", "step")),
    "scored": (f"{LABELS}&view=photo", ("photo", "parts")),
}


def answered(view: str) -> str:
    """What is true on the page once all of a view is shown."""
    return " && ".join([VIEWED, *(f"linscope.answers.{name}" for name in VIEWS[view][1])])


def slow() -> torch.nn.Module:
    """A network that takes a minute to answer, and so to be frozen."""

    class Slow(torch.nn.Module):
        def forward(self, x):
            time.sleep(60)
            return x

    return Slow()


class Server:
    """The command in a process of its own; `address` ends with the token and a slash."""

    def __init__(self, *arguments: str, first: str = NETWORK):
        models = ["--model", first, "--model", CLASSIFIER]
        command = [sys.executable, "-m", "linscope_cuda", "explore", "--no-browser", *models]
        paths = [str(Path(ls.__file__).parents[1]), str(Path(__file__).parent)]
        self.process = subprocess.Popen(
            [*command, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        while line and not line.startswith("linscope: http"):
            line = self.process.stderr.readline()
        self.address = line.split()[1].partition("#")[0]

    def end(self) -> tuple[int, str]:
        """Ctrl-C; the exit code and what was said of it."""
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out + err


def system(name: str = NETWORK, policy: str = "paper", size: int | None = SIZE) -> System:
    """What the page looks at, made here."""
    network = classifier() if name == CLASSIFIER else ls.zoo.load(name)
    return frozen(network, ls.zoo.photo("cat").image, name, policy, size, kind=EITHER)


def shown(browser, name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """The header and arrays of an answer that the page shows."""
    found = browser(
        "(({header, arrays}) => ({header, arrays: Object.fromEntries(Object.entries(arrays).map("
        f"([k, a]) => [k, [a.shape, Array.from(a.data)]]))}}))(linscope.answers['{name}'])"
    )
    named = {k: {"shape": shape, "data": data} for k, (shape, data) in found["arrays"].items()}
    return found["header"], tensors(named)


def tensors(arrays: dict) -> dict[str, torch.Tensor]:
    """Arrays as the page's JSON has them."""
    return {k: torch.tensor(a["data"]).reshape(a["shape"]) for k, a in arrays.items()}
