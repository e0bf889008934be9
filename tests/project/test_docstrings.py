"""Every public name says what it is, sentence first, and how it is called."""

import re

import pytest
from public_names import INNER, MEMBERS, MODULES, NAMED

SAID = {**NAMED, **INNER, **MEMBERS, **{name: module.__doc__ for name, module in MODULES.items()}}


@pytest.mark.parametrize("name", SAID)
def test_a_public_name_says_what_it_is(name):
    first = SAID[name].split("\n\n")[0].strip()
    assert re.fullmatch(r"[^\s>].*[.:]", first, re.DOTALL), f"{name} begins with {first!r}"


@pytest.mark.parametrize("name", SAID)
def test_code_is_marked_as_an_example(name):
    """The site shows what is behind >>> as code, all else as text, whose paragraphs end."""
    for paragraph in SAID[name].strip().split("\n\n"):
        assert paragraph.startswith(">>> ") or re.search(r"[.:;]$", paragraph), paragraph


@pytest.mark.parametrize("name", NAMED)
def test_a_public_name_shows_how_it_is_called(name):
    assert ">>> " in NAMED[name]
