"""Interrupted, killed and resumed runs of ls.svd, and files that it must refuse."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import safetensors.torch
import torch

import linscope_cuda as ls
from linscope_cuda.linalg.svd import lanczos, state

ROOT = Path(__file__).parents[2]
OPTIONS = {"k": 6, "tol": 1e-9, "block": 4, "progress": False}


def operator(dtype=torch.float64, seed=0, size=300):
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.linalg.qr(torch.randn(n, size, generator=generator, dtype=torch.float64))[0]
        for n in (400, 300)
    )
    sigmas = torch.tensor([1 / (1 + i) ** 0.5 for i in range(size)], dtype=torch.float64)
    # Five copies: more than the block, so that the trial for hidden ones runs, too.
    sigmas[2:7] = sigmas[2].clone()
    return ls.MatrixOperator((left * sigmas @ right.T).to(dtype))


def solve(checkpoint=None, **options):
    return ls.svd(operator(), checkpoint=checkpoint, **{**OPTIONS, **options})


@pytest.fixture(autouse=True)
def always_saved(monkeypatch):
    monkeypatch.setattr(state, "_SAVING", float("inf"))
    monkeypatch.setattr(lanczos, "_ROWS", 40)  # so that it restarts


@pytest.fixture(scope="module")
def whole():
    """The steps and the result of a run that nothing stops."""
    before, lanczos._ROWS = lanczos._ROWS, 40
    steps = []
    found = solve(callback=steps.append)
    lanczos._ROWS = before
    assert (
        len(steps) > 14 and steps[-1].restarts > 1 and found.converged and found.clustered.sum() > 1
    )
    return steps, found


def same(one, two, also_passes=True):
    for name in ("U", "S", "V", "errors", "angles", "clustered"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    assert one.converged == two.converged
    # A checkpoint costs one pass: the question whether it is of the same operator.
    assert not also_passes or one.passes == two.passes - 1


CHILD = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    import test_svd_checkpoint as t
    from linscope_cuda.linalg.svd import lanczos, state
    state._SAVING, lanczos._ROWS = float("inf"), 40
    kill = lambda *ignored: os.kill(os.getpid(), signal.SIGKILL)
    {how}
    t.solve({path!r}, callback=lambda step: step.iteration == {iteration} and kill())
"""
# Where in the life of a file the kill comes; each at the end of one iteration or another.
MOMENTS = {
    "before it is saved": "pass",
    "while it is written": """
    count = 0
    def fsync(number):
        global count
        count += 1
        count == {iteration} and (os.truncate(number, 1000), kill())
    os.fsync = fsync""",
    "before it is renamed": """
    count, replace = 0, os.replace
    def counted(*paths):
        global count
        count += 1
        count == {iteration} and kill()
        replace(*paths)
    os.replace = counted""",
}


def killed(path, moment, iteration):
    how = MOMENTS[moment].format(iteration=iteration)
    after = 10**9 if moment != "before it is saved" else iteration
    code = textwrap.dedent(CHILD).format(
        tests=str(Path(__file__).parent),
        how=textwrap.dedent(how).strip(),
        path=str(path),
        iteration=after,
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize("iteration", [1, 8, 14])
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed(moment, iteration, tmp_path, whole):
    steps, expected = whole
    path = tmp_path / "state"
    killed(path, moment, iteration)
    assert path.exists() == (iteration > 1)
    resumed = []
    found = solve(path, callback=resumed.append)
    same(expected, found)
    if iteration > 1:  # it went on, and not from the start
        assert resumed[0].iteration == iteration - 1 and len(resumed) < len(steps)
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_a_finished_run_is_not_repeated_and_goes_on_to_better_bars(tmp_path):
    path = tmp_path / "state"
    first = solve(path, tol=1e-6)
    op = operator()
    again = ls.svd(op, checkpoint=path, **{**OPTIONS, "tol": 1e-6})
    same(first, again, also_passes=False)
    assert op.passes == 1 and again.passes == first.passes
    better = solve(path, tol=1e-11)
    assert better.converged and (better.errors <= 1e-11 * better.S[0]).all()
    assert better.passes > first.passes


def test_interrupted_returns_what_is_done(whole):
    _, expected = whole

    def interrupt(step):
        if step.converged >= 2:
            raise KeyboardInterrupt

    found = solve(callback=interrupt)
    count = len(found.S)
    assert 2 <= count < 6 and not found.converged
    assert found.U.shape == (count, 400) and found.V.shape == (count, 300)
    assert ((found.S - expected.S[:count]).abs() <= found.errors + expected.errors[:count]).all()
    assert (found.errors <= 1e-9 * found.S[0]).all()


@pytest.mark.parametrize("limit", [0, 1])
@pytest.mark.parametrize("method", ["lanczos", "paper", "paper-literal"])
def test_interrupted_within_a_product(method, limit):
    class Interrupted(ls.MatrixOperator):
        due = limit * {"lanczos": 65, "paper": 100, "paper-literal": 500}[method]

        def _rmatmat(self, u):
            if self.passes > self.due:
                self.due = 10**9
                raise KeyboardInterrupt
            return super()._rmatmat(u)

    op = Interrupted(operator().matrix)
    true = torch.linalg.svdvals(op.matrix)
    found = ls.svd(op, 8, method, tol=1e-6, progress=False)
    assert op.due == 10**9 and not found.converged
    assert 0 < len(found.S) < 8 if limit else len(found.S) == 0
    assert ((found.S[:, None] - true).abs() <= found.errors[:, None]).any(1).all()


def test_interrupted_and_resumed(tmp_path, whole):
    _, expected = whole

    def interrupt(step):
        if step.iteration == 12:
            raise KeyboardInterrupt

    path = tmp_path / "state"
    assert not solve(path, callback=interrupt).converged
    same(expected, solve(path))


WRONG = {
    "k": ({"k": 5}, "its k is 6, 5 is wanted"),
    "block": ({"block": 3}, "its block is 4, 3 is wanted"),
    "seed": ({"generator": 5}, "its seed is "),
    "dtype": ({"op": {"dtype": torch.float32}}, "its dtype is torch.float64, torch.float32 is"),
    "operator": ({"op": {"seed": 1}}, "is of another operator: F v differs"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_checkpoint_of_another_call_is_refused(what, tmp_path):
    path = tmp_path / "state"
    solve(path, max_passes=60)
    before = path.read_bytes()
    options, words = WRONG[what]
    op = operator(**options.get("op", {}))
    options = {**OPTIONS, **{n: v for n, v in options.items() if n != "op"}}
    if "generator" in options:
        options["generator"] = torch.Generator().manual_seed(options["generator"])
    with pytest.raises(ValueError) as error:
        ls.svd(op, checkpoint=path, **options)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert op.passes <= 1 and path.read_bytes() == before


def test_another_shape_is_refused(tmp_path):
    path = tmp_path / "state"
    solve(path, max_passes=60)
    with pytest.raises(
        ValueError, match=r"its operator is \[\[300\], \[400\]\], \[\[12\], \[12\]\]"
    ):
        ls.svd(ls.MatrixOperator(torch.eye(12).double()), checkpoint=path, **OPTIONS)


def flip(data):
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (flip, "is damaged: its digest differs"),
        (lambda data: data[:-1], "is damaged or none"),
        (lambda data: b"", "is damaged or none"),
        (lambda data: b"not a checkpoint at all", "is damaged or none"),
        (lambda data: data.replace(b'k\\": 6', b'k\\": 7'), "is damaged: its digest differs"),
        (
            lambda data: safetensors.torch.save({"V": torch.eye(3)}, {"format": "pt"}),
            "wants a file of svd's, was given another",
        ),
    ],
)
def test_a_damaged_file_is_refused(change, words, tmp_path):
    path = tmp_path / "state"
    solve(path, max_passes=60)
    data = path.read_bytes()
    assert change(data) != data
    path.write_bytes(change(data))
    with pytest.raises(ValueError) as error:
        solve(path)
    assert words in str(error.value) and str(path) in str(error.value)
    assert path.read_bytes() == change(data)


def test_refused_before_any_work(tmp_path):
    op = operator()
    with pytest.raises(ValueError, match="checkpoint wants a file that can be written"):
        ls.svd(op, checkpoint=tmp_path / "no" / "folder", **OPTIONS)
    with pytest.raises(ValueError, match="checkpoint wants a file that can be written"):
        ls.svd(op, checkpoint=tmp_path, **OPTIONS)
    with pytest.raises(
        ValueError, match="checkpoint for \"lanczos\" only, was given one for 'paper'"
    ):
        ls.svd(op, 2, "paper", checkpoint=tmp_path / "state")
    assert op.passes == 0 and not list(tmp_path.iterdir())


def test_saving_takes_a_part_of_the_time(tmp_path, monkeypatch):
    """By a clock of our own, a save lasts 1, all else nothing: only the last follows the first."""
    now, saves = [0.0], []

    def save(*arguments):
        now[0] += 1.0
        saves.append(now[0])

    monkeypatch.setattr(state, "_SAVING", 0.1)
    monkeypatch.setattr(state.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(state.checkpoint, "save", save)
    assert solve(tmp_path / "state").converged
    assert saves == [1.0, 2.0]
