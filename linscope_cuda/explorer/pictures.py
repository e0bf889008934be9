"""Pictures that people drop on the page: looked at before they are decoded."""

from __future__ import annotations

import io

from PIL import Image

from ..study.errors import BadInput
from ..study.photos import require_photo
from ..zoo.images import decode

MOST_BYTES = 32 * 2**20
MOST_PIXELS = 50_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # decoders that start no other program


def picture(data: bytes, name: str) -> Image.Image:
    """The RGB picture in the bytes of a file; BadInput for what is no picture, or too large a one.
    Bytes and pixels are counted first.

    picture(Path("holiday.jpg").read_bytes(), "holiday.jpg")
    """
    if len(data) > MOST_BYTES:
        raise BadInput(
            f"{name!r} has {len(data):,} bytes, and a picture of at most {MOST_BYTES:,} is wanted"
        )
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:  # reads its header alone
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise BadInput(_too_many(name, str(error))) from error
    except Exception as error:  # a damaged header makes Pillow raise nearly anything
        raise BadInput(
            f"{name!r} is not a picture that can be read ({', '.join(FORMATS)})"
        ) from error
    if width * height > MOST_PIXELS:
        raise BadInput(_too_many(name, f"{width:,} x {height:,}"))
    try:
        image = decode(io.BytesIO(data), name)
    except ValueError as error:
        raise BadInput(str(error)) from error
    require_photo(image, repr(name))
    return image


def _too_many(name: str, size: str) -> str:
    return f"{name!r} has too many pixels ({size}), and at most {MOST_PIXELS:,} are wanted"
