"""JPEG for training: through libjpeg-turbo, no more of it and no larger than the crop needs."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import numpy as np
from PIL import Image

from reinception.data.images.decode import MAX_PIXELS, Pixels, decode, strict_quiet_pillow, upright
from reinception.data.images.jpeg_cut import Box, Part, cut, in_rgb
from reinception.data.images.jpeg_header import Header, read_header

try:
    import simplejpeg
except ImportError:  # the extra `fast` is not installed: Pillow decodes, the same pixels, slower
    simplejpeg: ModuleType | None = None  # type: ignore[no-redef]

SCALED_ABOVE_PIXELS = 1 << 20
"""Smaller pictures are decoded at full size, so that they can be kept in memory and cropped again in the next epoch."""

_SHRINKS = (8, 4, 2)


class Undecoded(Protocol):
    """A JPEG that is not decoded yet; `width` and `height` are those of the upright picture."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    def pixels(self, shrink: int) -> Pixels:
        """The upright picture, each side divided by `shrink` (1, 2, 4 or 8) and rounded up.

        Scaling is the decoder's: fewer coefficients of each block of 8x8 are transformed.
        """
        ...

    def part(self, box: Box, shrink: int) -> Pixels:
        """The pixels of `pixels(shrink)` that the box (left, top, right, bottom) of the picture touches."""
        ...


Picture = Pixels | Undecoded


@dataclass(frozen=True, kw_only=True, eq=False)
class Jpeg:
    """An encoded JPEG, and what its header says."""

    data: bytes
    header: Header

    @property
    def width(self) -> int:
        return self.header.height if self.header.orientation >= 5 else self.header.width

    @property
    def height(self) -> int:
        return self.header.width if self.header.orientation >= 5 else self.header.height

    def pixels(self, shrink: int) -> Pixels:
        stored = _turbo(self.data, self.header.width, self.header.height, self.header.num_channels, shrink)
        return upright(_pillow(self.data, self.header, shrink) if stored is None else stored, self.header.orientation)

    def part(self, box: Box, shrink: int) -> Pixels:
        small = scaled_box(box, shrink)
        left, top, right, bottom = _stored_box(small, self.header, shrink)
        found = cut(self.data, self.header, (left, top, right, bottom), shrink) if simplejpeg else None
        stored = None if found is None else self._decoded(found, shrink)
        if found is None or stored is None:
            return self.pixels(shrink)[small[1] : small[3], small[0] : small[2]]
        inside = stored[top - found.top : bottom - found.top, left - found.left : right - found.left]
        return upright(inside, self.header.orientation)

    def _decoded(self, part: Part, shrink: int) -> Pixels | None:
        if part.file is not None:
            return _turbo(part.file, part.width, part.height, self.header.num_channels, shrink)
        planes = [
            _turbo(plane, -(-part.width // 2), -(-part.height // 2), 1, shrink // 2)
            if isinstance(plane, bytes)
            else plane
            for plane in part.planes
        ]
        whole = [plane for plane in planes if plane is not None]
        return in_rgb(whole) if len(whole) == len(planes) else None


def is_large(width: int, height: int) -> bool:
    """Whether a JPEG of that size is decoded smaller where its crop allows."""
    return width * height > SCALED_ABOVE_PIXELS


def shrink_for(width: float, height: float, size: int) -> int:
    """The largest of 8, 4, 2 and 1 that leaves a box of that width and height at least `size` pixels each way."""
    return next((shrink for shrink in _SHRINKS if min(width, height) >= shrink * size), 1)


def scaled_box(box: Box, shrink: int) -> Box:
    """The box of the picture at 1/`shrink` that holds what the box touches."""
    left, top, right, bottom = box
    return left // shrink, top // shrink, -(-right // shrink), -(-bottom // shrink)


def open_jpeg(data: bytes) -> Jpeg | None:
    """A JPEG that libjpeg-turbo may decode; None for whatever is to be left to `decode`."""
    header = read_header(data)
    if header is None or not 0 < header.width * header.height <= MAX_PIXELS:
        return None
    return Jpeg(data=data, header=header)


def _stored_box(box: Box, header: Header, shrink: int) -> Box:
    """Where the box of the upright picture lies in the stored one, both at 1/`shrink`."""
    left, top, right, bottom = box
    width, height = -(-header.width // shrink), -(-header.height // shrink)
    if header.orientation >= 5:  # it lies on its side
        left, top, right, bottom = top, left, bottom, right
    if header.orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if header.orientation in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def _turbo(data: bytes, width: int, height: int, num_channels: int, shrink: int) -> Pixels | None:
    """The stored picture, or None where libjpeg-turbo has the least doubt: then Pillow is asked."""
    if simplejpeg is None:
        return None
    width, height = -(-width // shrink), -(-height // shrink)
    is_grey = num_channels == 1
    try:
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if is_grey else "RGB", min_height=height, min_width=width)
    except ValueError:
        return None
    if pixels.shape[:2] != (height, width):
        return None
    return pixels[:, :, 0] if is_grey else pixels


def _pillow(data: bytes, header: Header, shrink: int) -> Pixels:
    """The stored picture as Pillow decodes it at that scale. `BadImage` as by `decode`, which is asked in doubt."""
    if shrink > 1:
        file = io.BytesIO(data)
        with contextlib.suppress(Exception), strict_quiet_pillow(), Image.open(file, formats=("JPEG",)) as image:
            image.draft(image.mode, (header.width // shrink, header.height // shrink))
            if image.size == (-(-header.width // shrink), -(-header.height // shrink)) and image.mode in ("L", "RGB"):
                return np.array(image)
    whole = upright(decode(data, keep_grey=True), _BACK[header.orientation])
    return np.ascontiguousarray(whole[::shrink, ::shrink])


# Turning back: quarter turns left and right undo each other, all others undo themselves.
_BACK = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
