"""The README and docs/: examples run as they stand, but for the download of weights; commands are
ones that the parsers take; pictures are there, and made by tools/gallery.py.
"""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linscope_cuda as ls
from linscope_cuda import cli
from linscope_cuda.zoo.fetch import Wheel

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import explorer_pictures  # noqa: E402
import gallery  # noqa: E402

import benchmarks.__main__ as benchmarks  # noqa: E402

PAGES = sorted(str(p.relative_to(ROOT)) for p in [ROOT / "README.md", *ROOT.glob("docs/*.md")])
_COMMAND = r"(?:linscope|python -m benchmarks)\b"


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_first_example_fetches_nothing(monkeypatch, capsys):
    monkeypatch.setattr(Wheel, "fetch", lambda wheel: pytest.fail(f"fetched {wheel.file}"))
    scope: dict = {}
    exec(examples("README.md")[0], scope)
    op, pixel, entries = scope["op"], scope["pixel"], scope["entries"]
    assert op.shape == (110592, 12288) and scope["x0"].shape == scope["row"].shape
    assert (scope["row"] * scope["x0"]).sum() == pytest.approx(entries.input.item(), rel=1e-4)
    assert entries.total.item() == pytest.approx(op.output[0][pixel].item(), rel=1e-4)
    assert "2 triplets" in capsys.readouterr().out


def test_the_examples_on_your_own_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("torchvision", reason="the README's example takes its network from there")
    _, example, with_a_file = examples("README.md")
    scope: dict = {}
    exec(example.replace('weights="DEFAULT"', "weights=None"), scope)
    op, x0 = scope["op"], scope["x0"]
    assert scope["row"].shape == x0.shape and scope["column"].shape == (1, 1000)
    error = (op.filter(x0) + scope["r"] - scope["y0"]).norm() / scope["y0"].norm()
    assert error < 1e-5
    assert scope["triplets"].S.shape == (4,) and scope["attribution"].shape == x0.shape
    exec(with_a_file, scope)
    assert torch.equal(scope["saved"].filter(x0), op.filter(x0))


class _Product(nn.Module):
    def forward(self, image, code):
        return torch.relu(image) * torch.sigmoid(code)


def test_the_examples_about_networks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    x0 = torch.randn(1, 3)
    scope = {"torch": torch, "ls": ls, "F": F, "model": model, "x0": x0}
    scope |= {"op": ls.LinearInterpreter(model, x0), "task": torch.sum}
    scope |= {"image": torch.randn(1, 4), "code": torch.randn(1, 4), "u": torch.randn(1, 4)}
    scope["generator"] = _Product().eval()
    for example in examples("docs/networks.md"):
        exec(example, scope)
    assert (tmp_path / "cat.tape").is_file() and len(list((tmp_path / "tapes").iterdir())) == 1
    assert model[0].weight.grad is not None


def commands(page: str) -> list[str]:
    """In blocks of code, a line each, and in the text."""
    text = (ROOT / page).read_text()
    return [
        " ".join(command.split("#")[0].split())
        for command in re.findall(rf"^(?:    )?({_COMMAND}.*)$|`({_COMMAND}[^`]*)`", text, re.M)
        for command in command
        if command
    ]


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_ones_that_the_parsers_take(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a benchmark's --json
    for name in benchmarks.BENCHMARKS:
        monkeypatch.setitem(benchmarks.BENCHMARKS, name, lambda *args: [{"ran": 0}])
    monkeypatch.setattr(benchmarks, "_unusable", lambda device: None)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    for command in commands(page):
        words = shlex.split(command)
        if words[0] == "linscope":
            if words[1:] not in ([], ["--help"]):
                cli._parser().parse_args(words[1:])
        else:
            monkeypatch.setattr(sys, "argv", words[2:])
            assert benchmarks.main() == 0, command


def test_pictures_are_there_and_made_by_the_gallery():
    made = [name for entry in gallery.GALLERY.values() for name in entry.pictures]
    made += [f"{name}.png" for name in explorer_pictures.SHOTS]
    assert len(made) == len(set(made))
    assert sorted(made) == sorted(path.name for path in gallery.PICTURES.iterdir())
    shown = set()
    for page in PAGES:
        for link in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", (ROOT / page).read_text()):
            picture = ((ROOT / page).parent / link).resolve()
            if page == "docs/benchmarks.md":  # made by benchmarks.page
                assert picture.exists(), link
                continue
            assert picture.parent == gallery.PICTURES, f"{page} shows {link}"
            shown.add(picture.name)
    assert shown == set(made)
    assert sum(path.stat().st_size for path in gallery.PICTURES.iterdir()) < 3 * 2**20


def test_pages_say_how_their_pictures_are_made():
    known = {c for page in PAGES if page != "README.md" for c in commands(page)}
    for entry in gallery.GALLERY.values():
        assert entry.command in known


def test_the_gallery_makes_its_pictures_small(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "PICTURES", tmp_path / "pictures")
    entry = gallery.Entry("linscope fields --size 16", {"a.png": "fields.png"})
    gallery.make(entry, tmp_path / "work")
    (picture,) = (tmp_path / "pictures").iterdir()
    assert picture.name == "a.png" and picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < (tmp_path / "work" / "fields.png").stat().st_size
    monkeypatch.setattr(gallery, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="too many"):
        gallery.make(entry, tmp_path / "work")
