"""torch's own operator database: every entry is right, or refused in words; a table says which."""

from pathlib import Path

import operator_database
import pytest
import torch

TABLE = Path(__file__).with_name("operator_database.txt")
KINDS = [(inplace, policy) for inplace in (False, True) for policy in ("paper", "taylor")]


def known():
    """The answers of each entry, as the table has them."""
    lines = TABLE.read_text().splitlines()
    return {line[:60].strip(): line[60:].split() for line in lines if not line.startswith("#")}


KNOWN = known()
# Of another torch only that nothing is wrong.
SAME = torch.__version__.startswith(TABLE.read_text().split()[2])


@pytest.mark.parametrize("name", operator_database.ENTRIES)
def test_an_entry_is_right_or_refused(name):
    for i, (inplace, policy) in enumerate(KINDS):
        said, reasons = operator_database.summary(name, inplace, policy)
        where = f"{policy}{', in place' if inplace else ''}: {reasons}"
        assert said not in ("wrong", "crashed"), where
        assert not SAME or said == KNOWN[name][i], where


@pytest.mark.skipif(not SAME, reason="the table is of another torch")
def test_the_table_has_every_entry_and_no_other():
    assert list(KNOWN) == list(operator_database.ENTRIES)


def test_most_entries_are_right():
    answers = [row[0] for row in KNOWN.values()]
    assert answers.count("right") >= 330
    assert not {"wrong", "crashed"} & {answer for row in KNOWN.values() for answer in row}
