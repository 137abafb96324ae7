"""Small JPEG copies of images as data URIs, so that one page carries its pictures."""

from __future__ import annotations

import base64
import io

from PIL import Image

from reinception.data.loading.read import pixels_of
from reinception.data.sources.records import Record
from reinception.errors import BadImage

SIDE = 192
"""Longest side in pixels: sharp at the size the page shows it, on a screen with two pixels to a point."""

SMALL_SIDE = 128
"""The same for pictures that are many and open on demand."""

_QUALITY = 80


def thumbnail(record: Record, *, side: int = SIDE) -> str | None:
    """`data:image/jpeg;base64,...` of the image, its longest side at most `side`; None where it cannot be read now."""
    try:
        picture = Image.fromarray(pixels_of(record))
    except BadImage:
        return None
    picture.thumbnail((side, side), Image.Resampling.BOX if max(picture.size) > 4 * side else Image.Resampling.LANCZOS)
    return data_uri(picture)


def data_uri(picture: Image.Image) -> str:
    """The picture as a JPEG inside a URI."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
