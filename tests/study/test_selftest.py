"""`linscope selftest`: passes where all is right, finds what is wrong, says where it cannot run."""

import json
import math

import pytest
import torch

from linscope_cuda import cli
from linscope_cuda.operators import native as _native
from linscope_cuda.operators import reference
from linscope_cuda.operators.table import OPERATORS
from linscope_cuda.study import selftest

RESULTS = [name for name, operator in OPERATORS.items() if not operator.in_place]


def checks(device="cpu"):
    return {(c.name, c.dtype): c for c in selftest.selftest(device)}


def test_all_is_right(device):
    found = checks(device)
    assert all(c.ok for c in found.values()), selftest.report(list(found.values()), str(device))
    names = {name for name, _ in found}
    assert names >= {"relu", "clamp", "max_pool2d", "instance_norm", *reference.GATES}
    assert len(found) == 4 * (4 + len(reference.GATES)) + 2 * 7


def test_every_operator_is_called(monkeypatch):
    called = set()

    class Listening(selftest._Compiled):
        def __getattr__(self, name):
            called.add(name)
            return super().__getattr__(name)

    monkeypatch.setattr(selftest, "_Compiled", Listening)
    checks()
    assert called == set(RESULTS)


@pytest.mark.parametrize("name", RESULTS)
def test_a_wrong_operator_is_found(name, monkeypatch, capsys):
    right = getattr(reference, name)

    def wrong(*args):
        result = right(*args)
        first = result[0] if isinstance(result, tuple) else result
        first[-1, -1, -1, -1] += 0.1
        return result

    class Compiled:
        def __getattr__(self, other):
            return wrong if other == name else getattr(reference, other)

    monkeypatch.setattr(selftest, "DTYPES", (torch.float64, torch.float16))
    monkeypatch.setattr(selftest, "_Compiled", Compiled)
    assert cli.main(["selftest"]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_a_wrong_decision_is_found():
    decision = torch.tensor([3], dtype=torch.uint8)
    assert selftest._error(decision, decision + 1) == math.inf
    assert not selftest.Check("relu", "float32", math.nan, 1.0).ok


def test_the_command_as_text_and_as_json(capsys):
    assert cli.main(["selftest"]) == 0
    assert capsys.readouterr().out.endswith("all 54 pass on cpu\n")
    assert cli.main(["selftest", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] and found["device"] == "cpu" and len(found["checks"]) == 54
    assert found["compiled"] == _native.is_compiled("cpu")


def test_specification_against_itself_is_said_to_be_that(capsys, monkeypatch):
    monkeypatch.setitem(_native.KERNELS, "cpu", "no kernels were built")
    assert cli.main(["selftest"]) == 0
    assert "not compiled" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys):
    assert cli.main(["selftest", "--device", "cuda"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert "cuda cannot be used: torch" in said.err
