"""Tapes: what they hold, on disk and back, and what is refused."""

import json
import struct

import pytest
import torch
from networks import PIECEWISE, Gated, Image, Spellings, build, example
from torch import nn

import linscope_cuda as ls


def equal(a, b):
    return torch.equal(a, b)


@pytest.mark.parametrize("kind", [*PIECEWISE, Gated])
@pytest.mark.parametrize("policy", ["paper", "taylor"])
def test_saved_and_loaded_is_the_same_system(kind, policy, tmp_path):
    model, x0 = build(kind), example(kind)
    op = ls.LinearInterpreter(model, x0, policy)
    op.tape.save(tmp_path / "one.tape")
    again = ls.LinearInterpreter.from_tape(build(kind), tmp_path / "one.tape")
    assert equal(again.x0, x0) and equal(again.output, op.output)
    assert equal(again.residual, op.residual) and equal(again.todense(), op.todense())
    assert equal(again.T.todense(), op.T.todense())
    assert str(again.tape) == str(op.tape) and repr(again.policy) == repr(op.policy)
    assert again.certify().ok
    assert [p.name for p in tmp_path.iterdir()] == ["one.tape"]


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "one.tape"
    ls.LinearInterpreter(build(Image), example(Image)).tape.save(path)
    return path


def load(path, model=None):
    return ls.LinearInterpreter.from_tape(model or build(Image), path)


def test_every_truncation_is_refused(saved):
    whole = saved.read_bytes()
    for size in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="damaged or no tape"):
            load(saved)


def test_an_altered_byte_is_refused(saved):
    whole = saved.read_bytes()
    (header,) = struct.unpack("<Q", whole[:8])
    generator = torch.Generator().manual_seed(0)
    for at in torch.randint(8 + header, len(whole), (20,), generator=generator).tolist():
        saved.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="altered"):
            load(saved)


def test_an_altered_header_is_refused(saved):
    whole = saved.read_bytes()
    for old, new in ((b"relu", b"rely"), (b"max_pool2d", b"min_pool2d")):
        assert old in whole
        saved.write_bytes(whole.replace(old, new))
        with pytest.raises(ValueError, match="altered"):
            load(saved)


def test_other_models_are_refused(saved):
    with pytest.raises(ValueError, match="another model: the structure differ"):
        load(saved, build(Spellings))
    with pytest.raises(ValueError, match="another model: the structure differ"):
        load(saved, build(Image).float())
    with pytest.raises(ValueError, match="another model: the weights differ"):
        load(saved, build(Image, seed=1))
    nudged = build(Image)
    nudged.tail.bias.data[0] += 1e-15
    with pytest.raises(ValueError, match="another model: the weights differ"):
        load(saved, nudged)
    with pytest.raises(ValueError, match="training mode"):
        load(saved, nn.Sequential(nn.Dropout()))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tape at"):
        load(tmp_path / "none.tape")
    (tmp_path / "text").write_text("a tape?")
    with pytest.raises(ValueError, match="damaged or no tape"):
        load(tmp_path / "text")
    header = json.dumps({"__metadata__": {"linscope_cuda.tape": "{}"}}).encode()
    (tmp_path / "future").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match="no tape of this version"):
        load(tmp_path / "future")


def test_a_failed_save_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()
    op = ls.LinearInterpreter(build(Image), example(Image, 3))
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        op.tape.save(saved)
    assert saved.read_bytes() == before and len(list(saved.parent.iterdir())) == 1


def test_a_doubled_batch_has_no_tape(tmp_path):
    op = ls.LinearInterpreter(build(Image), example(Image), storage="none")
    with pytest.raises(ValueError, match="nothing to save"):
        op.tape.save(tmp_path / "x")


@pytest.mark.parametrize("kind", [*PIECEWISE, Gated])
def test_a_folder_holds_the_decisions(kind, tmp_path):
    model, x0 = build(kind), example(kind)
    folder = tmp_path / "new" / "folder"
    op, want = ls.LinearInterpreter(model, x0, storage=folder), ls.LinearInterpreter(model, x0)
    files = sorted(folder.iterdir())
    assert len(files) == len([e for e in op.tape if e.nbytes])
    assert sum(f.stat().st_size for f in files) >= op.tape.nbytes == want.tape.nbytes
    assert equal(op.todense(), want.todense()) and equal(op.residual, want.residual)
    assert op.certify().ok
    op.tape.save(tmp_path / "one.tape")
    assert equal(load(tmp_path / "one.tape", model).todense(), want.todense())


def test_a_second_interpreter_in_a_folder_leaves_the_first_alone(tmp_path):
    model = build(Image)
    first = ls.LinearInterpreter(model, example(Image), storage=tmp_path)
    dense = first.todense()
    second = ls.LinearInterpreter(model, example(Image, 1), storage=tmp_path)
    assert equal(first.todense(), dense) and not equal(second.todense(), dense)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        ls.LinearInterpreter(build(Image), example(Image), storage=tmp_path / "file")
