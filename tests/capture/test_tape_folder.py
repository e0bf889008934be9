"""Decisions in a folder: several records, several processes, and what is left of them."""

import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from networks import Image, build, example
from torch import nn

import linscope_cuda as ls


def start(code, *arguments):
    """A process that runs this code beside the tests' modules; it waits for a line first."""
    here = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([here, *filter(None, sys.path)])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


TOGETHER = """
import sys
import torch
from networks import Image, build, example
import linscope_cuda as ls
folder, seed = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
model, x0 = build(Image), example(Image, seed)
want = ls.LinearInterpreter(model, x0, check=False)
want = want.residual, want.filter(x0), want.transpose(want.output)
print("ready", flush=True)
input()
wrong = 0
for _ in range(60):
    op = ls.LinearInterpreter(model, x0, storage=folder, check=False)
    got = op.residual, op.filter(x0), op.transpose(op.output)
    wrong += not all(map(torch.equal, got, want))
print(wrong)
"""


def test_two_processes_in_one_folder_keep_to_their_own(tmp_path):
    processes = [start(TOGETHER, tmp_path, seed) for seed in (0, 1)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        wrong, error = process.communicate()
        assert (wrong, process.returncode) == ("0\n", 0), error
    op = ls.LinearInterpreter(build(Image), example(Image), storage=tmp_path)
    assert len(list(tmp_path.iterdir())) == len(op.tape)  # what was left is cleared away


def test_a_record_between_a_file_and_its_mapping_changes_nothing(tmp_path, monkeypatch):
    """What two processes do by chance: one names a file, the other a file of its own, one maps."""
    others, threads = [], []

    def record():
        others.append(
            ls.LinearInterpreter(build(Image), example(Image, 1), storage=tmp_path, check=False)
        )

    for name in ("replace", "rename"):
        named = getattr(os, name)

        def then_another_record(*paths, named=named):
            named(*paths)
            if not threads:  # a thread of its own, out of sight of the first record
                threads.append(threading.Thread(target=record))
                threads[0].start()
                threads[0].join()

        monkeypatch.setattr(os, name, then_another_record)
    op = ls.LinearInterpreter(build(Image), example(Image), storage=tmp_path, check=False)
    for got, seed in ((op, 0), (others[0], 1)):
        want = ls.LinearInterpreter(build(Image), example(Image, seed))
        assert torch.equal(got.todense(), want.todense())


def test_a_file_that_another_program_changes_is_noticed(tmp_path, monkeypatch):
    rename = os.rename

    def changed(part, path):
        whole = Path(part).read_bytes()
        Path(part).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        rename(part, path)

    monkeypatch.setattr(os, "rename", changed)
    with pytest.raises(OSError, match="was changed by another program"):
        ls.LinearInterpreter(build(Image), example(Image), storage=tmp_path)


def test_files_stay_until_the_next_record_after_their_tape(tmp_path):
    model = build(Image)

    def record(seed):
        return ls.LinearInterpreter(model, example(Image, seed), storage=tmp_path)

    first = record(0)
    files, want = set(tmp_path.iterdir()), first.todense()
    second = record(1)
    assert files < (both := set(tmp_path.iterdir()))
    tape = second.tape
    del second
    gc.collect()
    third = record(2)
    assert both < set(tmp_path.iterdir())  # the second's tape is still there
    del tape, third
    gc.collect()
    assert both < set(tmp_path.iterdir())
    fourth = record(3)
    assert len(list(tmp_path.iterdir())) == 2 * len(files) == 2 * len(fourth.tape)
    assert files < set(tmp_path.iterdir()) and torch.equal(first.todense(), want)


class Refused(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(torch.relu(x))


def test_what_a_failed_record_left_is_cleared_by_the_next(tmp_path):
    with pytest.raises(ls.UnscopedOperation):
        ls.LinearInterpreter(Refused().eval(), torch.randn(1, 5), storage=tmp_path)
    gc.collect()
    left = set(tmp_path.iterdir())
    op = ls.LinearInterpreter(build(Image), example(Image), storage=tmp_path)
    assert left and not left & set(tmp_path.iterdir()) and len(op.tape)


KILLED = """
import os, signal, sys
from networks import Image, build, example
import linscope_cuda as ls
op = ls.LinearInterpreter(build(Image), example(Image), storage=sys.argv[1])
print(len(op.tape), flush=True)
input()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_cleared_by_the_next(tmp_path):
    kept = tmp_path / "00000.safetensors"  # somebody's
    kept.touch()
    process = start(KILLED, tmp_path)
    count = int(process.stdout.readline())
    theirs = set(tmp_path.iterdir()) - {kept}
    assert len(theirs) == count
    model = build(Image)
    first = ls.LinearInterpreter(model, example(Image), storage=tmp_path)
    assert theirs < set(tmp_path.iterdir())  # it is alive
    process.communicate("\n")
    assert process.returncode == -signal.SIGKILL and theirs < set(tmp_path.iterdir())
    mine = set(tmp_path.iterdir()) - theirs
    second = ls.LinearInterpreter(model, example(Image, 1), storage=tmp_path)
    assert mine < set(tmp_path.iterdir()) and not theirs & set(tmp_path.iterdir())
    assert len(first.tape) == len(second.tape) == count
