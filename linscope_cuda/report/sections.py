"""The words of the page, for networks that make pictures and for those that give scores.

Texts are HTML of our own, formatted with `error`, `dtype`, `ratio`, `share` and `top`.
"""

from __future__ import annotations

from dataclasses import dataclass

SYSTEM = '<span class="math"><i>y</i> = <i>F</i> <i>x</i>\u2080 + <i>r</i></span>'
_ERROR = (
    'Here <span class="math">|<i>y</i> \u2212 <i>F</i> <i>x</i>\u2080 \u2212 <i>r</i>| / '
    "|<i>y</i>|</span> = <b>{error}</b>, in {dtype}."
)
_TRIPLET = (
    '<span class="math"><i>F</i> <i>v</i> = <i>\u03c3</i> <i>u</i></span>'
    ', with <span class="math">|<i>u</i>| = |<i>v</i>| = 1</span>.'
)


@dataclass(frozen=True)
class Section:
    """A heading, what is to be seen in a sentence or two, and the pictures by name."""

    title: str
    text: str
    pictures: tuple[str, ...]
    triplets: bool = False
    explained: bool = False  # followed by what must be said of F x0 and r, if anything


FOR_IMAGES = (
    Section(
        "What the network says",
        "The network takes one picture into another: what it was shown and its answer, drawn at "
        "one size.",
        ("input", "output"),
    ),
    Section(
        "The network as a linear system",
        f"With all the decisions frozen that the network took for this input, it is the linear "
        f"system {SYSTEM}. {_ERROR} The residual, the answer to an input of zeros, has "
        '<span class="math">|<i>r</i>| / |<i>y</i>|</span> = <b>{ratio}</b>.',
        ("output", "filtered", "residual"),
        explained=True,
    ),
    Section(
        "A row of F: the receptive filter",
        "A row of <i>F</i> holds the weights with which the input\u2019s pixels add up to one "
        "output pixel. It is <i>F</i><sup>T</sup><i>\u03b4</i>, the transposed system\u2019s "
        "answer to an impulse.",
        ("probe-output", "row", "row-close", "row-photo"),
    ),
    Section(
        "A column of F: the projective filter",
        "A column of <i>F</i> is the impulse response <i>F</i><i>\u03b4</i>: what one input pixel "
        "adds to the output, and where.",
        ("probe-input", "column", "column-close"),
    ),
    Section(
        "The singular value decomposition",
        "Eigen-inputs <i>v</i> are the stimuli that the frozen network answers most strongly, "
        f"eigen-outputs <i>u</i> are its answers: {_TRIPLET}",
        ("sigma", "places"),
        triplets=True,
    ),
)

FOR_SCORES = (
    Section(
        "What the network says",
        "The network takes an image into scores, without a softmax layer; here are the largest.",
        ("input", "scores"),
    ),
    Section(
        "The network as a linear system",
        f"With all the decisions frozen that the network took for this input, it is the linear "
        f"system {SYSTEM}. {_ERROR} Each score is what the filter makes of the image, "
        "<i>F</i> <i>x</i>\u2080, plus the residual <i>r</i>, the answer to an input of zeros: "
        "<b>{top}</b> of the best score "
        '(<i>r</i> / <i>y</i>), and <span class="math">|<i>r</i>| / (|<i>r</i>| + |<i>F</i> '
        "<i>x</i>\u2080|)</span> = <b>{share}</b> over all scores.",
        ("parts",),
        explained=True,
    ),
    Section(
        "A row of F: the weights of a score",
        "The row of <i>F</i> for a score holds the weights with which all pixels add up to it. A "
        "network that matched templates would show the object here.",
        ("input", "row", "row-photo"),
    ),
    Section(
        "A column of F: the reach of a pixel",
        "A column of <i>F</i> is the impulse response <i>F</i><i>\u03b4</i> of one input pixel: "
        "what it adds to each score while all decisions stay frozen.",
        ("probe-input", "column"),
    ),
    Section(
        "The singular value decomposition",
        "Eigen-inputs <i>v</i> are the stimuli that move the scores most, eigen-outputs <i>u</i> "
        f"are the directions in which they move: {_TRIPLET}",
        ("sigma", "places"),
        triplets=True,
    ),
)
