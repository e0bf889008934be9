"""A tour of one network on one photo: its linear system as plain data, pictures and a page.

The command `linscope tour` is a thin shell around these:

found = explore(zoo.load("pixelshuffle4_x3"), zoo.photo("cat").image, network_name="mine")
publish("my-tour", files(found))    # pictures, and the self-contained tour.html
"""

from ..study.errors import BadInput
from ..study.tour import Field, Score, Tour, explore
from .captions import gallery
from .html import page
from .numbers import summary
from .writing import files, publish, require_writable

__all__ = [
    "BadInput",
    "Field",
    "Score",
    "Tour",
    "explore",
    "files",
    "gallery",
    "page",
    "publish",
    "require_writable",
    "summary",
]
