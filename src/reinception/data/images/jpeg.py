"""JPEG decoding for training: libjpeg-turbo, at the smallest scale that the crop allows."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import numpy as np
from PIL import Image

from reinception.data.images.decode import MAX_PIXELS, Pixels, decode, strict_quiet_pillow, upright
from reinception.data.images.jpeg_header import JpegHeader, read_header

try:
    import simplejpeg
except ImportError:  # the extra `fast` is not installed: Pillow decodes the same pixels, more slowly
    simplejpeg: ModuleType | None = None  # type: ignore[no-redef]

SCALED_ABOVE_PIXELS = 1 << 20
"""Smaller images are decoded at full size, so that they can be cached and cropped again in the next epoch."""

_SCALE_DENOMINATORS = (8, 4, 2)


class UndecodedJpeg(Protocol):
    """A large JPEG that is not decoded yet; `width` and `height` are those of the upright image."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    def pixels(self, scale_denominator: int) -> Pixels:
        """The upright image, each side divided by `scale_denominator` (1, 2, 4 or 8) and rounded up.

        The decoder does the scaling: it transforms fewer coefficients of each block of 8x8.
        """
        ...


TrainingImage = Pixels | UndecodedJpeg


@dataclass(frozen=True, kw_only=True, eq=False)
class Jpeg:
    """An encoded JPEG and its header."""

    data: bytes
    header: JpegHeader

    @property
    def width(self) -> int:
        return self.header.height if self.header.orientation >= 5 else self.header.width

    @property
    def height(self) -> int:
        return self.header.width if self.header.orientation >= 5 else self.header.height

    @property
    def is_large(self) -> bool:
        """Whether it is decoded at a smaller scale where the crop allows."""
        return self.width * self.height > SCALED_ABOVE_PIXELS

    def image(self) -> Image.Image | None:
        """A Pillow image of four channels, red, green, blue and an unused one, for resizing only: Pillow stores colours
        so, and a large image need not be copied. None where it is grey, turned, or libjpeg-turbo is not sure of it."""
        if simplejpeg is None or self.header.orientation != 1 or self.header.num_channels == 1:
            return None
        try:
            pixels = simplejpeg.decode_jpeg(self.data, "RGBX")
        except ValueError:
            return None
        height, width = pixels.shape[:2]
        if (height, width) != (self.header.height, self.header.width):
            return None
        return Image.frombuffer("RGBX", (width, height), pixels, "raw", "RGBX", 0, 1)

    def pixels(self, scale_denominator: int) -> Pixels:
        stored = _turbo(self, scale_denominator)
        return upright(_pillow(self, scale_denominator) if stored is None else stored, self.header.orientation)


def scale_denominator_for(width: float, height: float, size: int) -> int:
    """The largest of 8, 4, 2 and 1 that leaves a box of that width and height at least `size` pixels each way."""
    return next((scale for scale in _SCALE_DENOMINATORS if min(width, height) >= scale * size), 1)


def open_jpeg(data: bytes) -> Jpeg | None:
    """A JPEG that libjpeg-turbo may decode; None for everything that is left to `decode`."""
    header = read_header(data)
    if header is None or not 0 < header.width * header.height <= MAX_PIXELS:
        return None
    return Jpeg(data=data, header=header)


def _turbo(jpeg: Jpeg, scale_denominator: int) -> Pixels | None:
    """The stored image, or None where libjpeg-turbo is not sure of it: then Pillow decides."""
    if simplejpeg is None:
        return None
    width, height = jpeg.header.scaled_size(scale_denominator)
    is_grey = jpeg.header.num_channels == 1
    try:
        pixels = simplejpeg.decode_jpeg(jpeg.data, "GRAY" if is_grey else "RGB", min_height=height, min_width=width)
    except ValueError:
        return None
    if pixels.shape[:2] != (height, width):
        return None
    return pixels[:, :, 0] if is_grey else pixels


def _pillow(jpeg: Jpeg, scale_denominator: int) -> Pixels:
    """The stored image as Pillow decodes it at that scale. `BadImage` as by `decode`, which is asked in doubt."""
    header = jpeg.header
    if scale_denominator > 1:
        file = io.BytesIO(jpeg.data)
        with contextlib.suppress(Exception), strict_quiet_pillow(), Image.open(file, formats=("JPEG",)) as image:
            image.draft(image.mode, (header.width // scale_denominator, header.height // scale_denominator))
            if image.size == header.scaled_size(scale_denominator) and image.mode in ("L", "RGB"):
                return np.array(image)
    whole = upright(decode(jpeg.data, keep_grey=True), _INVERSE_ORIENTATION[header.orientation])
    return np.ascontiguousarray(whole[::scale_denominator, ::scale_denominator])


# Quarter turns left and right undo each other, all others undo themselves.
_INVERSE_ORIENTATION = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
