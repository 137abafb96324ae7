"""Size, shape, brightness and contrast of images, from a sample of their pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reinception.data.images.decode import Pixels
from reinception.data.loading.read import pixels_of
from reinception.data.sources.records import Record
from reinception.errors import BadImage

MOST_DECODED, MOST_PIXELS = 1_000, 2_000_000_000
"""Images that are decoded for it, and their pixels in all: seconds, not minutes."""

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""The weights of Pillow's grey, ITU-R BT.601's."""


@dataclass(frozen=True, kw_only=True)
class ImageStatistics:
    """Size in pixels; mean (brightness) and standard deviation (contrast) of the grey values, 0 to 255."""

    width: int
    height: int
    brightness: float
    contrast: float

    @property
    def shape(self) -> str:
        """`wide`, `tall` or `square`, within a tenth."""
        ratio = self.width / self.height
        return "wide" if ratio > 1.1 else "tall" if ratio < 1 / 1.1 else "square"


def image_statistics(records: Sequence[Record | None]) -> Mapping[int, ImageStatistics]:
    """By position, of a random sample of `records` with a fixed seed; None and unreadable images are left out."""
    found: dict[int, ImageStatistics] = {}
    pixels = 0
    for place in np.random.default_rng(0).permutation(len(records)).tolist():
        if len(found) == MOST_DECODED or pixels > MOST_PIXELS:
            break
        record = records[place]
        if record is not None and (one := _statistics(record)) is not None:
            found[place] = one
            pixels += one.width * one.height
    return dict(sorted(found.items()))


def _statistics(record: Record) -> ImageStatistics | None:
    try:
        pixels = pixels_of(record)
    except BadImage:
        return None
    grey = _grey(pixels)
    height, width = pixels.shape[:2]
    return ImageStatistics(width=width, height=height, brightness=float(grey.mean()), contrast=float(grey.std()))


def _grey(pixels: Pixels) -> npt.NDArray[np.float32]:
    """A large image is subsampled: the mean is as good, and takes a sixteenth of the memory."""
    step = max(1, min(pixels.shape[:2]) // 256)
    part = pixels[::step, ::step].astype(np.float32)
    return part if part.ndim == 2 else part @ _LUMA
