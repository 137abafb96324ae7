"""Small JPEG copies of images as data URIs, for pages that carry their own images."""

from __future__ import annotations

import base64
import io

from PIL import Image

from reinception.data.images.decode import Pixels

THUMBNAIL_SIDE = 192
"""Longest side in pixels: sharp at the size a page shows it, on a screen with two pixels to a point."""

_QUALITY = 80


def thumbnail(pixels: Pixels, *, side: int = THUMBNAIL_SIDE) -> str:
    """`data:image/jpeg;base64,...` of an image (h, w, 3) or (h, w) uint8, its longest side at most `side` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.BOX if max(image.size) > 4 * side else Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
