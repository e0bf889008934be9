"""Sweeps against dense matrices; killed, resumed and shared by several processes."""

import os
import signal
import subprocess
import sys
import textwrap
import weakref
from collections import Counter
from pathlib import Path

import pytest
import torch

import linscope_cuda as ls

zarr = pytest.importorskip("zarr")

ROOT = Path(__file__).parents[2]
INPUT, OUTPUT = (2, 4, 3), (3, 8, 6)
BLOCK = 7  # pixels: 48 of the output make 7 blocks, the last one smaller


def matrix(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    F = torch.randn(3, 8, 6, 2, 4, 3, generator=generator, dtype=torch.float64)
    F[:, 2:4, :] = 0  # rows of zeros: chunks that zarr would leave out by itself
    return F.reshape(144, 24).to(dtype)


def operator(seed=0, dtype=torch.float64):
    return ls.MatrixOperator(matrix(seed, dtype), INPUT, OUTPUT)


def sweep(path, op=None, **options):
    return ls.sweep(op or operator(), path, **{"block": BLOCK, "progress": False, **options})


def values(found):
    return torch.from_numpy(found.values[:])


def check_rows(found):
    """Every row is there and right, and so is the summary."""
    assert found.complete and found.done == found.blocks == 7
    F = matrix().reshape(3, 48, *INPUT).movedim(1, 0)
    assert torch.equal(values(found), F)
    for place in (0, 20, 47):
        i, j = divmod(place, 6)
        field = ls.fields(
            operator(), (i, j), at="output", channels="each", within=found.within
        ).receptive
        assert found.energy[i, j].item() == pytest.approx(field.energy.sum().item())
        if field.energy.sum() > 0:
            away = (field.away * field.energy.sum((1, 2))).sum() / field.energy.sum()
            assert found.away[i, j].item() == pytest.approx(away.item())
    assert found.energy.sum().item() == pytest.approx(matrix().square().sum().item())
    assert found.radius.isnan().nonzero()[:, 0].unique().tolist() == [2, 3]
    far = found.origin.sum() / found.energy.sum()
    assert found.mass_away == pytest.approx(far.item())


def test_all_rows(tmp_path):
    check_rows(sweep(tmp_path / "store"))


def test_all_columns(tmp_path):
    found = sweep(tmp_path / "store", kind="columns", block=5)
    assert found.blocks == 3 and found.energy.shape == (4, 3) and found.origin.shape == (8, 6)
    F = matrix().T.reshape(2, 12, *OUTPUT).movedim(1, 0)
    assert torch.equal(values(found), F)
    field = ls.fields(operator(), (1, 2), channels=[0], share=0.9, within=0.5).projective
    alone = ls.MatrixOperator(matrix()[:, :12], (1, 4, 3), OUTPUT)
    one = sweep(tmp_path / "one", alone, kind="columns", within=0.5)
    assert one.radius[1, 2].item() == field.radius.item()
    assert one.away[1, 2].item() == pytest.approx(field.away.item())


def test_every_other_pixel_without_values(tmp_path):
    whole, some = sweep(tmp_path / "1"), sweep(tmp_path / "2", stride=3, values=False)
    assert some.values is None and (some.rows, some.columns) == ([1, 4, 7], [1, 4])
    assert torch.equal(some.energy, whole.energy[1::3, 1::3])
    torch.testing.assert_close(some.away, whole.away[1::3, 1::3], equal_nan=True)


def test_half_precision_is_kept_as_float32(tmp_path):
    found = sweep(tmp_path / "store", operator(dtype=torch.bfloat16))
    assert found.values.dtype == "float32"
    assert torch.equal(values(found)[5, 1].flatten(), matrix(dtype=torch.bfloat16)[53].float())


def test_one_block_at_a_time_is_in_memory(tmp_path):
    class Counting(ls.MatrixOperator):
        alive, most = weakref.WeakSet(), 0

        def _rmatmat(self, u):
            made = super()._rmatmat(u)
            self.alive.add(made)
            Counting.most = max(Counting.most, sum(len(x) for x in self.alive))
            return made

    op = Counting(matrix(), INPUT, OUTPUT)
    sweep(tmp_path / "store", op)
    assert op.passes == 145 and Counting.most <= 2 * 3 * BLOCK


def test_a_finished_sweep_is_not_repeated(tmp_path):
    sweep(tmp_path / "store")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    op = operator()
    check_rows(sweep(tmp_path / "store", op))
    assert op.passes == 1  # is it the same operator?
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}


def test_an_unfinished_store_can_be_looked_at(tmp_path):
    found = sweep(tmp_path / "store", part=(1, 3))
    assert (found.done, found.complete) == (2, False)
    assert found.energy.flatten().isnan().sum() == 48 - 2 * BLOCK
    assert 0 < found.mass_away < 1
    for rank in (0, 2):
        sweep(tmp_path / "store", part=(rank, 3))
    check_rows(ls.open_sweep(tmp_path / "store"))


# ---- kills ----

# Keeps a log of the chunks renamed into place, and stops before or after the one numbered `kill`.
CHILD = """
    import os, pathlib, signal, sys
    sys.path.insert(0, {tests!r})
    import test_sweep
    rename, count, kill = pathlib.Path.replace, 0, {kill}
    def stop():
        os.kill(os.getpid(), signal.SIGKILL)
    def counted(self, target):
        global count
        if "/c/" not in str(target):
            return rename(self, target)
        count += 1
        if count == kill and {when!r} == "before":
            stop()
        made = rename(self, target)
        with open({log!r}, "a") as file:
            file.write(str(target) + "\\n")
        if count == kill:
            stop()
        return made
    pathlib.Path.replace = counted
"""
ALONE = """
    test_sweep.sweep({store!r})
"""
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    # Otherwise torchrun's second life meets gloo's addresses of the first one in the shared store.
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}


def script(tmp_path, kill, when="after", then=ALONE):
    return (textwrap.dedent(CHILD) + textwrap.dedent(then)).format(
        tests=str(Path(__file__).parent),
        store=str(tmp_path / "store"),
        log=str(tmp_path / "log"),
        meeting=str(tmp_path / "meeting"),
        kill=kill,
        when=when,
    )


def run(tmp_path, *command):
    return subprocess.run(
        [sys.executable, *command], env=ENVIRONMENT, capture_output=True, text=True
    )


def check_written_once(tmp_path):
    """Each chunk of each array, and no other file is left."""
    written = Counter((tmp_path / "log").read_text().split())
    assert len(written) == 5 * 7 and set(written.values()) == {1}
    chunks = {str(p) for p in (tmp_path / "store").rglob("c/**/*") if p.is_file()}
    assert chunks == set(written)


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_twice_and_resumed(when, tmp_path):
    for kill in (4, 13):
        done = run(tmp_path, "-c", script(tmp_path, kill, when))
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert bool(list((tmp_path / "store").rglob("*.partial"))) == (when == "before")
    assert not ls.open_sweep(tmp_path / "store").complete
    done = run(tmp_path, "-c", script(tmp_path, 0))
    assert done.returncode == 0, done.stderr
    check_rows(ls.open_sweep(tmp_path / "store"))
    check_written_once(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "store"]


# In its first life rank 1 dies at its 6th chunk, when rank 0 is at its 6th, too; torchrun then ends
# rank 0, which waits there, and starts both anew.
RANK = """
    import datetime
    import torch.distributed as dist
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    if int(os.environ["TORCHELASTIC_RESTART_COUNT"]):
        kill = 0
    def stop():
        meeting = dist.FileStore({meeting!r}, 2)
        meeting.set(str(rank), "here")
        meeting.wait([str(1 - rank)])
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        meeting.wait(["the end"], datetime.timedelta(minutes=5))
    test_sweep.sweep({store!r})
    dist.barrier()
    assert test_sweep.ls.open_sweep({store!r}).complete
    dist.destroy_process_group()
"""


def test_two_processes_of_which_one_is_killed_and_restarted(tmp_path):
    (tmp_path / "rank.py").write_text(script(tmp_path, 6, then=RANK))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = run(tmp_path, *launch, "--max-restarts=1", str(tmp_path / "rank.py"))
    assert done.returncode == 0, done.stderr
    assert "exitcode: -9" in done.stderr  # rank 1 did die
    check_rows(ls.open_sweep(tmp_path / "store"))
    check_written_once(tmp_path)


def test_ranks_that_start_together_make_one_store(tmp_path, monkeypatch):
    """Another rank makes the store between our look and our rename."""
    rename = os.rename

    def late(source, target):
        monkeypatch.setattr(os, "rename", rename)
        sweep(target, part=(1, 2))
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    check_rows(sweep(tmp_path / "store", part=(0, 2)))
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


# ---- what is refused ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "diagonals"}, "kind of rows, columns, was given 'diagonals'"),
        ({"stride": 0}, "stride and block >= 1"),
        ({"block": 0}, "stride and block >= 1"),
        ({"part": (2, 2)}, "part wants"),
        ({"share": 2}, "share wants"),
        ({"within": -1}, "within wants"),
        ({"op": ls.MatrixOperator(torch.eye(6))}, "a network that makes a picture"),
    ],
)
def test_wrong_arguments_leave_nothing(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        sweep(tmp_path / "store", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "columns"}, "its kind is rows, columns is wanted"),
        ({"block": 8}, "its block is 7, 8 is wanted"),
        ({"within": 2.0}, "its within is 0.375, 2.0 is wanted"),
        ({"values": False}, "its values is True, False is wanted"),
        ({"stride": 2}, "its rows is other ones"),
        ({"op": operator(dtype=torch.float32)}, "its dtype is float64"),
        ({"op": operator(seed=1)}, "of another operator"),
    ],
)
def test_a_store_of_another_sweep_is_refused(options, message, tmp_path):
    sweep(tmp_path / "store")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=message):
        sweep(tmp_path / "store", **options)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    zarr.create_group(tmp_path / "group")
    for name in ("file", "folder", "group"):
        with pytest.raises(ValueError, match=f"{name}' is no store of a sweep"):
            sweep(tmp_path / name)
    with pytest.raises(ValueError, match="is no store"):
        ls.open_sweep(tmp_path / "missing")
    assert (tmp_path / "folder" / "mine").read_text() == "mine"


def test_without_zarr_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'linscope_cuda\[sweep\]'"):
        sweep(tmp_path / "store")
