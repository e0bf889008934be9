"""The photos of commands that take many: a set of the zoo, or a folder."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from .. import zoo
from ..report import BadInput
from ..study.named import load_photo
from ..study.photos import require_photo
from .options import Options

PHOTOS: Options = {
    ("--photos",): {
        "metavar": "SET",
        "help": "photos of the zoo: imagenet20 or skimage (default: imagenet20)",
    },
    ("--images",): {
        "type": Path,
        "metavar": "FOLDER",
        "help": "or all image files in a folder and the folders in it",
    },
}


def photos_of(args: Namespace) -> Sequence[zoo.Photo | Path]:
    """The photos of a set, or the image files of a folder, which are read one by one."""
    if args.images and args.photos:
        raise BadInput("--images and --photos are alternatives, give one of them")
    if args.images is None:
        try:
            return zoo.photos(args.photos or "imagenet20")
        except ValueError as error:
            raise BadInput(str(error)) from error
        except OSError as error:
            raise BadInput(f"the photos could not be had: {error}") from error
    if not args.images.is_dir():
        raise BadInput(f"{str(args.images)!r} is not a folder of images")
    endings = Image.registered_extensions()
    paths = sorted(p for p in args.images.rglob("*") if p.suffix.lower() in endings)
    if not paths:
        raise BadInput(f"the folder {str(args.images)!r} holds no image files")
    return paths


def read(which: zoo.Photo | Path) -> zoo.Photo:
    """A photo of a set, or that of a file; BadInput for one that is none."""
    if isinstance(which, zoo.Photo):
        return which
    photo = load_photo(str(which))
    require_photo(photo.image, repr(str(which)))
    return photo
