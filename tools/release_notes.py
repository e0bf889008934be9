"""What the newest release changes, from CHANGELOG.md, for whoever announces it.

python tools/release_notes.py > NOTES.md
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def version() -> str:
    """The package's, which is written in linscope_cuda/__init__.py alone."""
    text = (ROOT / "linscope_cuda" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    assert found
    return found.group(1)


def notes(changelog: str, version: str) -> str:
    """The changelog's first section; ValueError unless it is that version's.

    notes("# Changelog\\n\\n## 0.2.0\\n- It is quicker.\\n", "0.2.0")
    """
    _, *sections = re.split(r"^## ", changelog, flags=re.MULTILINE)
    heading, _, text = sections[0].partition("\n") if sections else ("nothing", "", "")
    if heading.strip() != version:
        raise ValueError(f"CHANGELOG.md begins with {heading.strip()}, the package is {version}")
    return text.strip() + "\n"


if __name__ == "__main__":
    try:
        print(notes((ROOT / "CHANGELOG.md").read_text(), version()), end="")
    except ValueError as error:
        sys.exit(f"release_notes: {error}")
