"""The site's sources, without the tools that build it: the reference has every public name once,
the first page computes what it says, and the check of a built site sees what is wrong with one.
"""

import fnmatch
import re
import sys
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from public_names import INNER, MODULES

import linscope_cuda as ls

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import site_check  # noqa: E402


def referred() -> Counter[str]:
    """Names as the directives of docs/reference/ have them."""
    texts = [page.read_text() for page in sorted(ROOT.glob("docs/reference/*.rst"))]
    found = re.findall(r"^\.\. auto\w+:: (\S+)$", "\n".join(texts), re.M)
    return Counter(name.removeprefix("linscope_cuda.") for name in found)


def test_the_reference_has_every_public_name_once():
    modules = {m.__name__.removeprefix("linscope_cuda.") for m in MODULES.values()}
    wanted = {*ls.__all__} - {*MODULES} | modules | {*INNER}
    beside = {"program.program.Program", "program.line.Line"}
    assert referred() == Counter(wanted | beside)


def test_every_page_is_in_the_sites_index():
    index = (ROOT / "docs/index.md").read_text()
    listed = re.findall(r"```{toctree}\n(?::.*\n)*\n((?:.+\n)*)```", index)
    paths = [p for end in ("md", "rst", "ipynb") for p in (ROOT / "docs").rglob(f"*.{end}")]
    pages = {str(p.relative_to(ROOT / "docs").with_suffix("")) for p in paths} - {"index"}
    shown = [page for name in "".join(listed).split() for page in fnmatch.filter(pages, name)]
    assert sorted(shown) == sorted(pages)


def test_the_first_page_prints_what_it_says():
    text = (ROOT / "docs/start.md").read_text()
    scope: dict = {}
    blocks = re.findall(r"```python\n((?s:.*?))```\n\n((?:    .*\n)*)", text)
    for code, says in blocks:
        printed = StringIO()
        with redirect_stdout(printed):
            exec(code, scope)
        for line, said in zip(printed.getvalue().splitlines(), says.splitlines(), strict=True):
            assert re.sub(_NUMBER, "#", line).split() == re.sub(_NUMBER, "#", said).split()
            numbers, meant = (list(map(float, re.findall(_NUMBER, s))) for s in (line, said))
            small = "e-" in said  # rounding: of a processor's own
            assert numbers == pytest.approx(meant, rel=9 if small else 1e-2, abs=2e-4), line
    assert len(blocks) == 5


_NUMBER = r"-?\d+\.\d+|\d+e-\d+"


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "a.html fetches from another host"),
        ('<link rel="stylesheet" href="//fonts.example/css">', "a.html fetches from another host"),
        ('<p style="background: url(http://cdn.example/p.png)">', "a.html fetches from another"),
        ("<style>@import 'https://cdn.example/x.css';</style>", "a.html fetches from another host"),
        ('<img src="gone.png">', "a.html fetches what is not there: gone.png"),
        ('<img src="../above.png">', "a.html fetches what is not there"),
        ('<a href="b.html">', "a.html leads nowhere: b.html"),
        ('<a href="#gone">', "a.html leads nowhere: #gone"),
        ('<a href="style.css#any">', None),
        ('<a href="https://example.org">', None),
        ('<img src="data:image/png;base64,AAAA"><a href="#here"><p id="here">', None),
    ],
)
def test_the_check_of_a_built_site(page, fault, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (tmp_path / "above.png").touch()
    (site / "style.css").write_text("p { color: red }")
    (site / "a.html").write_text(page)
    faults = list(site_check.Site(site).faults())
    assert len(faults) == (fault is not None)
    assert all(f.startswith(fault) for f in faults)


def test_the_check_of_a_style_sheet_and_of_nothing(tmp_path):
    assert len(list(site_check.Site(tmp_path).faults())) == 1
    (tmp_path / "a.html").write_text("<p>")
    (tmp_path / "x.css").write_text("@font-face { src: url('https://fonts.example/f.woff') }")
    (fault,) = site_check.Site(tmp_path).faults()
    assert fault == "x.css fetches from another host: https://fonts.example/f.woff"
