"""JPEG for training: straight through libjpeg-turbo, at a half, a quarter or an eighth where that is enough."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import numpy as np
from PIL import Image

from reinception.data.decode import MAX_PIXELS, Pixels, decode, strict_quiet_pillow, upright

try:
    import simplejpeg
except ImportError:  # the extra `fast` is not installed: Pillow decodes, the same pixels, slower
    simplejpeg: ModuleType | None = None  # type: ignore[no-redef]

SCALED_ABOVE_PIXELS = 1 << 20
"""Smaller pictures are decoded whole, so that they can be kept in memory and cropped again in the next epoch."""

_SHRINKS = (8, 4, 2)
_BASELINE_TO_PROGRESSIVE = (0xC0, 0xC1, 0xC2)
_START_OF_SCAN, _APP1, _APP14 = 0xDA, 0xE1, 0xEE
_ORIENTATION = 0x0112


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a JPEG says before its pixels: its stored size, its channels, and how it is to be turned (1 to 8)."""

    width: int
    height: int
    num_channels: int
    orientation: int


@dataclass(frozen=True, kw_only=True)
class ScaledJpeg:
    """A large JPEG, not decoded yet; `width` and `height` are those of the upright picture.

    `pixels(shrink)` is the upright picture with each side divided by `shrink` (1, 2, 4 or 8) and rounded up. The
    scaling is the decoder's: fewer coefficients of each block of 8x8 are transformed.
    """

    width: int
    height: int
    pixels: Callable[[int], Pixels]


def shrink_for(width: float, height: float, size: int) -> int:
    """The largest of 8, 4, 2 and 1 that leaves a box of that width and height at least `size` pixels each way."""
    return next((shrink for shrink in _SHRINKS if min(width, height) >= shrink * size), 1)


def open_jpeg(data: bytes) -> Pixels | ScaledJpeg | None:
    """A JPEG's pixels, (h, w, 3) or (h, w); a large one unopened; None for whatever is to be left to `decode`."""
    header = read_header(data)
    if header is None or not 0 < header.width * header.height <= MAX_PIXELS:
        return None
    if header.width * header.height > SCALED_ABOVE_PIXELS:
        width, height = header.width, header.height
        if header.orientation >= 5:  # it lies on its side
            width, height = height, width
        return ScaledJpeg(width=width, height=height, pixels=partial(_scaled, data, header))
    pixels = _turbo(data, header, 1)
    return None if pixels is None else upright(pixels, header.orientation)


def _scaled(data: bytes, header: Header, shrink: int) -> Pixels:
    stored = _turbo(data, header, shrink)
    return upright(_pillow(data, header, shrink) if stored is None else stored, header.orientation)


def read_header(data: bytes) -> Header | None:  # noqa: PLR0911 - each way out is one thing that is not for this room
    """None unless this is a JPEG of 8 bits in grey or in colours as JFIF means them, sequential or progressive."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    position, frame, orientation = 2, None, 1
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4])
        body = data[position + 4 : position + 2 + length]
        if marker == _START_OF_SCAN:
            return frame and Header(width=frame[0], height=frame[1], num_channels=frame[2], orientation=orientation)
        if marker in _BASELINE_TO_PROGRESSIVE and len(body) >= 6:
            if body[0] != 8 or body[5] not in (1, 3) or frame is not None:
                return None
            frame = int.from_bytes(body[3:5]), int.from_bytes(body[1:3]), body[5]
        elif 0xC3 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return None  # lossless, hierarchical or arithmetic
        elif marker == _APP14 and body[:5] == b"Adobe":
            return None  # it may mean RGB or CMYK
        elif marker == _APP1:
            if b"orientation" in body.lower():  # as XMP, in text: Pillow knows the order of precedence
                return None
            if body[:6] == b"Exif\0\0":
                orientation = _exif_orientation(body)
        position += 2 + length
    return None


def _exif_orientation(body: bytes) -> int:
    exif = Image.Exif()
    try:
        with strict_quiet_pillow():
            exif.load(body)
            found = exif.get(_ORIENTATION, 1)
    except Exception:  # damaged notes beside a whole picture: it is taken as it is stored, as in `decode`
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _turbo(data: bytes, header: Header, shrink: int) -> Pixels | None:
    """The stored picture, or None where libjpeg-turbo has the least doubt: then Pillow is asked."""
    if simplejpeg is None:
        return None
    width, height = _stored_size(header, shrink)
    is_grey = header.num_channels == 1
    try:
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if is_grey else "RGB", min_height=height, min_width=width)
    except ValueError:
        return None
    if pixels.shape[:2] != (height, width):
        return None
    return pixels[:, :, 0] if is_grey else pixels


def _pillow(data: bytes, header: Header, shrink: int) -> Pixels:
    """The stored picture as Pillow decodes it at that scale. `Refused` as by `decode`, which is asked in doubt."""
    if shrink > 1:
        file = io.BytesIO(data)
        with contextlib.suppress(Exception), strict_quiet_pillow(), Image.open(file, formats=("JPEG",)) as image:
            image.draft(image.mode, (header.width // shrink, header.height // shrink))
            if image.size == _stored_size(header, shrink) and image.mode in ("L", "RGB"):
                return np.array(image)
    whole = upright(decode(data, keep_grey=True), _BACK[header.orientation])
    return np.ascontiguousarray(whole[::shrink, ::shrink])


def _stored_size(header: Header, shrink: int) -> tuple[int, int]:
    return -(-header.width // shrink), -(-header.height // shrink)


# Turning back: quarter turns left and right undo each other, all others undo themselves.
_BACK = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
