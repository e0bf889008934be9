"""The benchmarks run, compare equal things, and count what the paper counts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from linscope_cuda import reference

ROOT = Path(__file__).parents[1]


def run(*arguments):
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_table_1_and_quick_products(tmp_path):
    out = tmp_path / "results.json"
    done = run("storage", "products", "kernels", "--quick", "--json", str(out))
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())
    counted = [row["as in Table 1 GB"] for row in results["storage"]]
    assert counted == [pytest.approx(v, abs=0.05) for v in (58.0, 90.1, 4147.2)]
    tape = [row["tape MB"] * 1e6 / 2**20 for row in results["storage"]]
    assert tape[0] <= 3.4 and tape[1] <= 3.7 and tape[2] <= 128
    assert len(results["products"]) == 4 and [row["kernel"] for row in results["kernels"]] == list(
        reference.OPERATORS
    )
    assert not list(tmp_path.glob("*.part"))


def test_recorded_activations_give_the_same_filter():
    sys.path.insert(0, str(ROOT))
    from networks import PIECEWISE, Gated, build, example

    import linscope_cuda as ls
    from benchmarks.dfv import DFV

    for kind in (*PIECEWISE, Gated):
        dfv, op = DFV(build(kind), example(kind)), ls.LinearInterpreter(build(kind), example(kind))
        torch.testing.assert_close(dfv.todense(), op.todense(), rtol=1e-10, atol=1e-13)
        assert dfv.dottest() < 1e-12
        assert dfv.nbytes > (8 if kind in PIECEWISE else 0) * op.tape.nbytes


def test_singular_values_and_what_they_cost(tmp_path):
    out = tmp_path / "results.json"
    done = run("svd", "--quick", "--json", str(out))
    assert done.returncode == 0, done.stderr
    rows = {row["method"]: row for row in json.loads(out.read_text())["svd"]}
    assert set(rows) == {"scipy svds", "lanczos", "paper", "paper-literal"}
    assert rows["lanczos"]["in sequence"] <= rows["paper"]["in sequence"] / 5
    assert rows["lanczos"]["samples"] < rows["paper"]["samples"]
    assert rows["lanczos"]["differs by"] <= 2e-6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["speed"], "no benchmark 'speed'"),
        (["storage", "--device", "gpu"], "there is no device 'gpu'"),
        (["storage", "--device", "meta"], "there is no device 'meta'"),
    ],
)
def test_bad_input(arguments, words):
    done = run(*arguments)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    done = run("kernels", "--device", "cuda")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "cuda cannot be used: torch" in done.stderr


@pytest.mark.cuda
def test_kernels_on_cuda():
    done = run("kernels", "--quick", "--device", "cuda")
    assert done.returncode == 0, done.stderr
    assert "of a copy" in done.stdout and "times compiled" in done.stdout
