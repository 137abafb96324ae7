"""Decoded pictures kept in memory that the loader's processes share, up to a bound."""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Callable
from functools import partial

import numpy as np

from reinception.data.decode import Pixels, Refused
from reinception.data.jpeg import ScaledJpeg
from reinception.data.workers import START_METHOD

# A picture has a row for its whole self, and one for each of the decoder's scales that is small enough to keep: with a
# sixteenth of the pixels or fewer, a gigabyte holds 380 pictures of 12 megapixels at both.
_ROWS = {1: 0, 4: 1, 8: 2}


class PixelCache:
    """Up to `num_bytes` of decoded pictures, each decoded by whichever process needs it first.

    The memory is an anonymous shared mapping made before the workers are forked: it needs no room in /dev/shm, is
    written once, and only what is used counts. Pictures that find no room are decoded each time.
    """

    def __init__(self, num_pictures: int, num_bytes: int) -> None:
        self._num_bytes = num_bytes
        self._pixels = np.frombuffer(mmap.mmap(-1, max(num_bytes, 1)), dtype=np.uint8)
        # Height, width, channels, offset: all zero until the pixels are written; no channels for a large JPEG's size.
        shape = (max(num_pictures, 1), len(_ROWS), 4)
        self._table = np.frombuffer(mmap.mmap(-1, 8 * int(np.prod(shape))), dtype=np.int64).reshape(shape)
        self._used = np.frombuffer(mmap.mmap(-1, 8), dtype=np.int64)
        self._lock = multiprocessing.get_context(START_METHOD).Lock()

    @property
    def num_bytes_used(self) -> int:
        """Bytes of pixels kept so far."""
        return int(self._used[0])

    def get(self, index: int, read: Callable[[], Pixels | ScaledJpeg]) -> Pixels | ScaledJpeg:
        """The picture at `index`, read-only when it comes from memory; `read` is called when it is not there yet.

        Of a large JPEG the size is kept, and the scales of it that are asked for and small.
        """
        with self._lock:
            height, width, channels, _ = self._table[index, 0].tolist()
        if channels:
            return self._kept(index, 0)
        opened = None
        if not height:
            picture = read()
            if isinstance(picture, np.ndarray):
                self._keep(index, 0, picture)
                return picture
            opened, height, width = picture, picture.height, picture.width
            with self._lock:
                self._table[index, 0] = (height, width, 0, 0)
        return ScaledJpeg(width=width, height=height, pixels=partial(self._scaled, index, opened, read))

    def _scaled(
        self, index: int, opened: ScaledJpeg | None, read: Callable[[], Pixels | ScaledJpeg], shrink: int
    ) -> Pixels:
        row = _ROWS.get(shrink, 0)
        with self._lock:
            is_kept = row > 0 and self._table[index, row, 0] > 0
        if is_kept:
            return self._kept(index, row)
        picture = read() if opened is None else opened
        if isinstance(picture, np.ndarray):
            raise Refused(
                "unreadable", "has changed since it was first read: start again, and leave it alone meanwhile"
            )
        pixels = picture.pixels(shrink)
        if row:
            self._keep(index, row, pixels)
        return pixels

    def _kept(self, index: int, row: int) -> Pixels:
        height, width, channels, offset = self._table[index, row].tolist()
        kept = self._pixels[offset : offset + height * width * channels]
        kept.flags.writeable = False
        return kept.reshape((height, width, channels) if channels > 1 else (height, width))

    def _keep(self, index: int, row: int, pixels: Pixels) -> None:
        with self._lock:
            offset = int(self._used[0])
            if offset + pixels.size > self._num_bytes:
                return
            self._used[0] = offset + pixels.size
        self._pixels[offset : offset + pixels.size] = pixels.reshape(-1)
        with self._lock:
            self._table[index, row] = (*pixels.shape[:2], pixels.shape[2] if pixels.ndim == 3 else 1, offset)
