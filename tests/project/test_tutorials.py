"""Every tutorial runs, each in a kernel of its own, and what it shows lies beside its code."""

import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.ipynb"))
FETCHES = re.compile(r"zoo\.load\([^)]*(squeezenet|cyclegan_vintage)")

nbformat = pytest.importorskip("nbformat", reason="the notebook's packages are not installed")


def cells(path: Path):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def marked(path: Path):
    fetches = any(FETCHES.search(cell.source) for cell in cells(path))
    marks = [pytest.mark.network] if fetches else []
    return pytest.param(path, id=path.stem, marks=marks)


@pytest.mark.parametrize("path", [marked(path) for path in TUTORIALS])
def test_it_runs(path, tmp_path, monkeypatch):
    # Otherwise kernels of two processes fight for the cores.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(
        "PYTHONPATH", os.fspath(Path(sys.modules["linscope_cuda"].__file__).parents[1])
    )
    monkeypatch.syspath_prepend(ROOT / "tools")
    import tutorials

    shown = tutorials.run(path, tmp_path)
    kept = nbformat.read(path, as_version=4)
    assert [c.source for c in shown.cells] == [c.source for c in kept.cells]
    for now, then in zip(
        cells(path), [c for c in shown.cells if c.cell_type == "code"], strict=True
    ):
        kinds = [[o.output_type for o in cell.outputs] for cell in (now, then)]
        assert kinds[0] == kinds[1], now.source


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_what_is_kept_says_nothing_of_the_machine(path):
    text = path.read_text()
    assert not re.search(r"\"stderr\"|/home/|/root/|site-packages|traceback", text)
    assert all(cell.execution_count for cell in cells(path))
