"""The site, as `make docs` builds it: docs/, parts of README.md, a reference of docstrings."""

import re
from pathlib import Path

import yaml
from docutils import nodes

import linscope_cuda as ls

ROOT = Path(__file__).parents[1]

project = "linscope_cuda"
author = "the linscope_cuda authors"
copyright = author
version = release = ls.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # the notebooks hold what their cells showed
highlight_language = "none"
smartquotes = False  # "paper" is to be typed as it stands
add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
viewcode_line_numbers = True

html_theme = "furo"
html_title = f"linscope_cuda {version}"
html_static_path = ["site/static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

# What pages link to outside of docs/, and the page of the site that shows it.
SHOWN = {"../README.md#the-zoo": "site/zoo.md", "../README.md": "index.md"}

_CODE = re.compile(r"`([^`]+)`")
_NAME = re.compile(r"(?:ls\.)?((\w+)(?:\.\w+)*)(?:\(\))?")


def named(code: str, within: str) -> str:
    """`svd`, `ls.svd` and, within ls.ops, `relu_scope` are links, all else is code."""
    name = _NAME.fullmatch(code)
    beside = getattr(ls, within, None) if within in ("ops", "reference", "zoo") else None
    if name and name[2] in ls.__all__:
        return f":py:obj:`{code} <linscope_cuda.{name[1]}>`"
    if name and hasattr(beside, name[2]):
        return f":py:obj:`{code} <linscope_cuda.{within}.{name[1]}>`"
    return f"``{code}``"


def rest(text: str, within: str) -> str:
    """A paragraph as reStructuredText."""
    parts = _CODE.split(text)
    for i, part in enumerate(parts):
        if i % 2:
            before = "\\ " if re.search(r"\w$", parts[i - 1]) else ""
            after = "\\ " if re.match(r"\w", parts[i + 1]) else ""
            parts[i] = before + named(part, within) + after
        else:
            escaped = re.sub(r"([\\*|])", r"\\\1", part)
            parts[i] = re.sub(r"(?<=\w)_(?!\w)", r"\\_", escaped)
    return "".join(parts)


def as_rest(app, what, name, obj, options, lines: list[str]) -> None:
    """Examples stay as they are."""
    paragraphs = "\n".join(lines).split("\n\n")
    within = name.removeprefix("linscope_cuda.").split(".")[0]
    done = [p if p.startswith(">>>") else rest(p, within) for p in paragraphs]
    lines[:] = "\n\n".join(done).split("\n")


def bibtex() -> str:
    """The preferred citation of CITATION.cff."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    authors = [f"{a['family-names']}, {a['given-names']}" for a in cited["authors"]]
    key = cited["authors"][0]["family-names"].split()[0].lower() + str(cited["year"])
    fields = {
        "title": cited["title"],
        "author": " and ".join(authors),
        "booktitle": cited["collection-title"],
        "year": cited["year"],
        "note": cited["identifiers"][0]["value"],
        "url": cited["url"],
    }
    lines = [f"  {name:9} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@inproceedings{{{key},", *lines, "}"])


def as_page(app, docname: str, source: list[str]) -> None:
    """Links that lead out of docs/ go to the page that shows what they name."""
    for outside, page in SHOWN.items():
        source[0] = source[0].replace(f"]({outside})", f"]({page})")
    if docname == "site/cite":
        source[0] += f"\n```bibtex\n{bibtex()}\n```\n"


def with_titles(app, doctree, docname: str) -> None:
    """A link that is written as a file's name shows the page's title."""
    for link in doctree.findall(nodes.reference):
        name = re.fullmatch(r"(?:docs/)?(\w+)\.md", link.astext())
        if name and name[1] in app.env.titles:
            title = app.env.titles[name[1]].astext()
            link.children = [nodes.emphasis("", title)]


def setup(app) -> None:
    app.connect("doctree-resolved", with_titles)
    app.connect("autodoc-process-docstring", as_rest)
    app.connect("source-read", as_page)
