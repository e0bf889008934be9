"""The progress bar: seen on a terminal, by nobody else unless asked for."""

import io

import pytest

from linscope_cuda import progress


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("asked", [None, True, False])
def test_who_sees_a_bar(asked, terminal, monkeypatch):
    monkeypatch.setattr("sys.stderr", Stream(terminal))
    with progress.bar(asked, total=7) as bar:
        assert bar.disable == (not terminal if asked is None else not asked)
        assert bar.disable or bar.delay == (0 if asked else 2)


def test_a_process_without_a_stderr(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    with progress.bar(total=7) as bar:
        assert bar.disable
