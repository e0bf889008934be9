"""A tour as one HTML page that needs nothing else: styles and pictures are inside it."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape

from ..study.tour import METHOD, SEED, TOLERANCE, Tour
from .captions import Picture, subscript
from .digits import percent, scientific
from .explained import explained
from .sections import FOR_IMAGES, FOR_SCORES, SYSTEM, Section

PAPER = "https://arxiv.org/abs/1908.05168"

_STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --ink: #1f2328; --pale: #57606a;
  --card: #fff; --line: #d8dbdf; --edge: #e1e4e8; --link: #2166ac; --note: #d6604d; --dim: none; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171a; --ink: #dfe2e5; --pale: #9aa4ae; --card: #1e2226; --line: #343a40;
    --edge: #30363c; --link: #7db3e8; --note: #e88470; --dim: brightness(.88); }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); overflow-wrap: anywhere;
  font: 17px/1.55 "Source Serif 4", Charter, "Iowan Old Style", Georgia, "DejaVu Serif", serif; }
main { max-width: 1120px; margin: 0 auto; padding: 44px 28px 64px; }
h1 { font-size: 34px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -.01em; }
h2 { font-size: 24px; line-height: 1.25; margin: 0 0 8px; }
h3 { font-size: 17px; margin: 0 0 8px; font-variant-numeric: tabular-nums; }
p { margin: 0 0 14px; max-width: 46em; }
.math { white-space: nowrap; }
.source, figcaption, footer { color: var(--pale); }
.source { font-size: 15px; }
section { border-top: 1px solid var(--line); padding: 30px 0 22px; }
.facts { display: grid; gap: 14px; margin: 24px 0 34px; padding: 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 225px), 1fr)); }
.facts div { background: var(--card); border: 1px solid var(--edge); border-radius: 6px;
  padding: 12px 16px; }
.facts dt { font-size: 14px; color: var(--pale); line-height: 1.35; }
.facts dd { margin: 2px 0 0; font-size: 23px; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.panels { display: grid; gap: 22px 24px; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); }
.triplets { display: grid; gap: 22px; margin-top: 18px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); }
.triplet { background: var(--card); border: 1px solid var(--edge); border-radius: 6px;
  padding: 14px 16px; }
.triplet .panels { gap: 16px; align-items: center;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 215px), 1fr)); }
figure { margin: 0; background: var(--card); border: 1px solid var(--edge); border-radius: 6px;
  padding: 10px 10px 8px; }
figure.chart, figure.large { grid-column: span 2; justify-self: start; }
figure.chart img { max-width: 450px; }
figure.large img { max-width: 600px; }
.scores { grid-template-columns: 1fr; }
.scores .panels { grid-template-columns: repeat(auto-fill, minmax(min(100%, 280px), 1fr)); }
.triplet figure { border: 0; padding: 0; }
figure img { display: block; width: 100%; height: auto; border-radius: 3px; filter: var(--dim); }
a { color: var(--link); }
code { font: .92em/1.4 ui-monospace, Menlo, Consolas, monospace; }
figure a:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; display: block; }
figcaption { font-size: 14.5px; line-height: 1.4; margin-top: 6px; }
table { border-collapse: collapse; font-size: 15.5px; margin: 0 0 6px; }
th, td { text-align: left; vertical-align: top; padding: 6px 20px 6px 0;
  border-bottom: 1px solid var(--edge); }
th { font-weight: 400; color: var(--pale); }
td { font-variant-numeric: tabular-nums; }
.note { border-left: 3px solid var(--note); padding-left: 12px; }
footer { border-top: 1px solid var(--line); padding-top: 14px; font-size: 14px; }
@media (max-width: 560px) {
  body { font-size: 16px; } main { padding: 24px 14px 40px; } h1 { font-size: 27px; }
  th, td { padding-right: 10px; }
}
@media (max-width: 700px) { figure.chart, figure.large { grid-column: auto; justify-self: auto; } }
"""


def page(tour: Tour, pictures: Sequence[Picture]) -> str:
    """The page of a tour with its pictures as data URIs; every name in it is escaped.

    Path("tour.html").write_text(page(found, list(gallery(found))), encoding="utf-8")
    """
    by_name = {picture.name: picture for picture in pictures}
    title = f"{tour.network} as a linear system"
    sections = FOR_SCORES if tour.is_classifier else FOR_IMAGES
    body = "\n".join(_section(section, tour, by_name) for section in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p>One network, one photo ({escape(tour.photo)}), and the linear system {SYSTEM} between them.</p>
<p class="source">{escape(tour.source)}</p>
{_facts(tour)}
{body}
{_cost(tour)}
<footer>{_made(tour)}, after <a href="{PAPER}">\u201cA Tour of Convolutional Networks Guided by
Linear Interpreters\u201d</a> (ICCV 2019).</footer>
</main>
</body>
</html>
"""


def _made(tour: Tour) -> str:
    command = f", by <code>{escape(tour.command)}</code>" if tour.command else ""
    return f"Made by linscope_cuda{command}"


def _facts(tour: Tour) -> str:
    N, n = tour.shape
    share = (
        ("residual in the best score, r / y", _share(tour.top[0].residual / tour.top[0].score))
        if tour.top
        else ("residual, |r| / |y|", _share(tour.residual_ratio))
    )
    facts = (
        ("filter F, outputs \u00d7 inputs", f"{_thousands(N)} \u00d7 {_thousands(n)}"),
        ("|y \u2212 F x\u2080 \u2212 r| / |y|", scientific(tour.relative_error)),
        share,
        ("largest singular value \u03c3\u2081", f"{tour.svd.S[0].item():.4g}"),
    )
    cells = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts)
    return f'<dl class="facts">{cells}</dl>'


def _section(section: Section, tour: Tour, pictures: dict[str, Picture]) -> str:
    text = section.text.format(
        error=scientific(tour.relative_error),
        dtype=tour.dtype,
        ratio=_share(tour.residual_ratio),
        share=_share(tour.residual_share),
        top=_share(tour.top[0].residual / tour.top[0].score) if tour.top else "",
    )
    # A field that fills its picture has no close-up.
    shown = "".join(_figure(pictures[name]) for name in section.pictures if name in pictures)
    triplets = _triplets(tour, pictures) if section.triplets else ""
    said = explained(tour) if section.explained else ""
    note = f'<p class="note">{escape(said)}</p>\n' if said else ""
    return (
        f"<section>\n<h2>{section.title}</h2>\n<p>{text}</p>\n{note}"
        f'<div class="panels">{shown}</div>\n{triplets}\n</section>'
    )


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    caption = escape(picture.caption)
    said = escape(picture.alternative)
    image = f'<img src="data:image/png;base64,{data}" alt="{said}">'
    if picture.link:
        image = f'<a href="{escape(picture.link)}">{image}</a>'
    return f'<figure class="{picture.room}">{image}<figcaption>{caption}</figcaption></figure>'


def _triplets(tour: Tour, pictures: dict[str, Picture]) -> str:
    found, cards = tour.svd, []
    values = found.S.tolist(), found.errors.tolist(), found.proven.tolist()
    for i, (sigma, error, proven) in enumerate(zip(*values, strict=True)):
        pair = "".join(_figure(pictures[f"triplet-{i + 1}-{end}"]) for end in ("input", "output"))
        cards.append(
            f'<div class="triplet"><h3><i>\u03c3</i>{subscript(i + 1)} = '
            f"{_with_error(sigma, error)}{'' if proven else ' (estimate)'}</h3>"
            f'<div class="panels">{pair}</div></div>'
        )
    kind = "triplets scores" if tour.is_classifier else "triplets"
    shared = "" if tour.is_classifier else ", and so do all eigen-outputs"
    note = (
        f"All eigen-inputs share one colour scale{shared}. Each pair <i>u</i>, <i>v</i> may change "
        "sign together."
    )
    if not found.proven.all():
        note += (
            " An error bar that is an estimate is right unless a singular value hid from the "
            "search; any other is a bound on the distance to a singular value."
        )
    if found.interrupted:
        note += (
            f'</p><p class="note">Stopped by hand, with {len(found.S)} of the {found.asked} '
            "triplets that were asked for."
        )
    elif not found.converged:
        note += (
            f'</p><p class="note">Stopped after {found.passes} passes, before every error was below'
            f" {scientific(TOLERANCE)} <i>\u03c3</i>\u2081: the error bars say what is left."
        )
    return f'<p></p><p>{note}</p><div class="{kind}">{"".join(cards)}</div>'


def _cost(tour: Tour) -> str:
    N, n = tour.shape
    ratio = tour.activation_bytes / tour.tape_bytes if tour.tape_bytes else 0.0
    record = f"{_bytes(tour.activation_bytes)} of ReLU activations"
    rows = (
        ("input and output", f"{_shape(tour.x0.shape)} \u2192 {_shape(tour.y.shape)}"),
        ("F as a dense matrix (not made)", f"{_thousands(N)} \u00d7 {_thousands(n)}, "
         f"{_bytes(tour.dense_bytes)}"),
        ("how nonlinear functions are frozen", f"policy \u201c{tour.policy}\u201d"),
        ("tape of all decisions", _bytes(tour.tape_bytes)),
        ("what DFV would record", f"{record}, {ratio:.0f} times the tape" if ratio else record),
        ("difference from the unpatched network, |f(x\u2080) \u2212 y| / |y|",
         scientific(tour.deviation)),
        ("|r| / (|r| + |F x\u2080|)", _share(tour.residual_share)),
        ("network passes spent", f"{tour.passes}, of them {tour.svd.passes} for the SVD"),
        ("SVD", f"method \u201c{METHOD}\u201d, tolerance {scientific(TOLERANCE)}, seed {SEED}"),
        ("time", f"{tour.seconds:.1f} s on {tour.device}, {tour.dtype}"),
    )  # fmt: skip
    cells = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows)
    return f"<section>\n<h2>Facts</h2>\n<table>{cells}</table>\n</section>"


def _shape(shape: Sequence[int]) -> str:
    return " \u00d7 ".join(map(str, shape))


def _thousands(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")


def _bytes(number: int) -> str:
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= factor:
            return f"{number / factor:.3g}\u00a0{unit}"
    return f"{number}\u00a0bytes"


def _with_error(value: float, error: float) -> str:
    """As many digits as the error leaves meaning."""
    digits = min(max(1 - math.floor(math.log10(error)), 0), 12) if 0 < error < math.inf else 4
    return f"{value:.{digits}f} \u00b1 {error:.{digits}f}"


def _share(share: float) -> str:
    return percent(share).replace(" ", "\u00a0")
