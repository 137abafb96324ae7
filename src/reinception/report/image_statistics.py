"""What images are like to the eye before anyone names them: size, shape, brightness, contrast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reinception.data.images.decode import Pixels
from reinception.data.loading.read import pixels_of
from reinception.data.sources.records import Record
from reinception.errors import BadImage

MOST_LOOKED_AT, MOST_PIXELS = 1_000, 2_000_000_000
"""Images that are decoded for it, and their pixels in all: seconds, not minutes."""

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""The weights of Pillow's grey, ITU-R BT.601's."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """Size in pixels; mean and standard deviation of the grey values, 0 to 255."""

    width: int
    height: int
    brightness: float
    contrast: float

    @property
    def shape(self) -> str:
        ratio = self.width / self.height
        return "wide" if ratio > 1.1 else "tall" if ratio < 1 / 1.1 else "square"


def looks(records: Sequence[Record | None]) -> Mapping[int, Look]:
    """By position, of records drawn evenly from all and the same ones every time; None and what cannot be read has
    none."""
    found: dict[int, Look] = {}
    pixels = 0
    for place in np.random.default_rng(0).permutation(len(records)).tolist():
        if len(found) == MOST_LOOKED_AT or pixels > MOST_PIXELS:
            break
        record = records[place]
        if record is not None and (look := _look(record)) is not None:
            found[place] = look
            pixels += look.width * look.height
    return dict(sorted(found.items()))


def _look(record: Record) -> Look | None:
    try:
        pixels = pixels_of(record)
    except BadImage:
        return None
    grey = _grey(pixels)
    height, width = pixels.shape[:2]
    return Look(width=width, height=height, brightness=float(grey.mean()), contrast=float(grey.std()))


def _grey(pixels: Pixels) -> npt.NDArray[np.float32]:
    # Of a large picture every so many rows and columns: the mean is as good, and takes a sixteenth of the memory.
    step = max(1, min(pixels.shape[:2]) // 256)
    part = pixels[::step, ::step].astype(np.float32)
    return part if part.ndim == 2 else part @ _LUMA
