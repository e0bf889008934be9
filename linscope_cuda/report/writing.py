"""A tour as files: complete or not at all."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ..files import scratch
from ..study.errors import BadInput
from ..study.tour import Tour
from .captions import gallery
from .html import page

PAGE = "tour.html"
PICTURES = "pictures"

_OURS = re.compile(
    r"(input|output|filtered|residual|scores|parts|sigma|places|probe-(in|out)put"
    r"|(row|column)(-close)?|row-photo|triplet-\d+-(in|out)put)\.png"
)


def files(tour: Tour, progress: Callable[[str], object] = lambda name: None) -> dict[str, bytes]:
    """The files of a tour, name -> content: its pictures and, last, the page that embeds them.

    files(found)["tour.html"]
    """
    pictures = []
    for picture in gallery(tour):
        progress(picture.name)
        pictures.append(picture)
    drawn = {f"{PICTURES}/{picture.name}.png": picture.png for picture in pictures}
    return drawn | {PAGE: page(tour, pictures).encode()}


def require_writable(folder: Path) -> None:
    """BadInput if `folder` is a file or nothing can be written there; leaves nothing behind.

    require_writable(Path("my-tour"))
    """
    with _writing(folder), scratch(_existing(folder)):
        pass


def publish(folder: Path, content: dict[str, bytes]) -> None:
    """Writes the files to `folder`, made if need be, in the order given.

    Each is written aside and renamed, so that a file there is either the old or the new one, whole.
    BadInput if that cannot be done. Pictures left over from an earlier tour are removed.

    publish(Path("my-tour"), files(found))
    """
    with _writing(folder), scratch(_existing(folder)) as aside:
        for name, data in content.items():
            (aside / name).parent.mkdir(exist_ok=True)
            (aside / name).write_bytes(data)
        for name in content:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(aside / name, folder / name)
        for old in (folder / PICTURES).glob("*.png"):
            if _OURS.fullmatch(old.name) and f"{PICTURES}/{old.name}" not in content:
                old.unlink()


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A place beside `folder` for files that grow as they are written; at the end each takes its
    place in `folder`, made if need be. After an error `folder` is as before.

    BadInput if nothing can be written there, or the disk is full.

    with staged(Path("out")) as aside:
        (aside / "table.csv").write_text("a,b")
    """
    with _writing(folder), scratch(_existing(folder)) as aside:
        yield aside
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(aside.iterdir()):
            os.replace(file, folder / file.name)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there already: one file system with it."""
    place = folder.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise BadInput(f"cannot write to {str(folder)!r}: {str(place)!r} is not a folder")
    return place


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(f"cannot write to {str(folder)!r}: {error.strerror or error}") from error
