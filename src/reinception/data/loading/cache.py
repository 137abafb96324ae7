"""Decoded pictures kept in memory that the loader's processes share, up to a bound."""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reinception.data.images.decode import Pixels
from reinception.data.images.jpeg import Box, Picture, Undecoded, is_large, scaled_box
from reinception.data.loading.workers import START_METHOD
from reinception.errors import BadImage

# A picture has a row for its whole self, and one for each of the decoder's scales that is small enough to keep: with a
# sixteenth of the pixels or fewer, a gigabyte holds 380 pictures of 12 megapixels at both.
_ROWS = {1: 0, 4: 1, 8: 2}
_KEPT_SCALES = (4, 8)


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

    def get(self, index: int, read: Callable[[], Picture]) -> Picture:
        """The picture at `index`, read-only when it comes from memory; `read` is called when it is not there yet.

        A JPEG that would find no room comes back undecoded, so that only the part that is needed will be decoded. Of a
        large one the size is kept, and the scales of it that are asked for and small.
        """
        with self._lock:
            height, width, channels, _ = self._table[index, 0].tolist()
        if channels:
            return self._kept(index, 1)
        if height:
            return _LargeJpeg(cache=self, index=index, width=width, height=height, opened=None, read=read)
        picture = read()
        if not isinstance(picture, np.ndarray):
            width, height = picture.width, picture.height
            if is_large(width, height):
                with self._lock:
                    self._table[index, 0] = (height, width, 0, 0)
                return _LargeJpeg(cache=self, index=index, width=width, height=height, opened=picture, read=read)
            if not self.has_room(width, height):
                return picture
            picture = picture.pixels(1)
        self.keep(index, 1, picture)
        return picture

    def has_room(self, width: int, height: int) -> bool:
        """Whether a picture of that size and three colours can still be kept."""
        return self.num_bytes_used + 3 * width * height <= self._num_bytes

    def scale(self, index: int, shrink: int) -> Pixels | None:
        """The picture at 1/`shrink`, where it is kept."""
        if shrink not in _KEPT_SCALES:
            return None
        with self._lock:
            is_kept = self._table[index, _ROWS[shrink], 0] > 0
        return self._kept(index, shrink) if is_kept else None

    def keep(self, index: int, shrink: int, pixels: Pixels) -> None:
        """Keep the picture at 1/`shrink`, where there is room."""
        with self._lock:
            offset = int(self._used[0])
            if offset + pixels.size > self._num_bytes:
                return
            self._used[0] = offset + pixels.size
        self._pixels[offset : offset + pixels.size] = pixels.reshape(-1)
        with self._lock:
            self._table[index, _ROWS[shrink]] = (*pixels.shape[:2], pixels.shape[2] if pixels.ndim == 3 else 1, offset)

    def _kept(self, index: int, shrink: int) -> Pixels:
        height, width, channels, offset = self._table[index, _ROWS[shrink]].tolist()
        kept = self._pixels[offset : offset + height * width * channels]
        kept.flags.writeable = False
        return kept.reshape((height, width, channels) if channels > 1 else (height, width))


@dataclass(frozen=True, kw_only=True, eq=False)
class _LargeJpeg:
    """A large JPEG whose small scales are kept; it is read again when anything else of it is asked for."""

    cache: PixelCache
    index: int
    width: int
    height: int
    opened: Undecoded | None
    read: Callable[[], Picture]

    def pixels(self, shrink: int) -> Pixels:
        kept = self.cache.scale(self.index, shrink)
        if kept is not None:
            return kept
        pixels = self._undecoded().pixels(shrink)
        if shrink in _KEPT_SCALES:
            self.cache.keep(self.index, shrink, pixels)
        return pixels

    def part(self, box: Box, shrink: int) -> Pixels:
        """Of a scale that is kept or will be: decoding it whole, once, is what makes later epochs fast."""
        is_cheap = self.cache.scale(self.index, shrink) is not None
        if is_cheap or (shrink in _KEPT_SCALES and self.cache.has_room(self.width // shrink, self.height // shrink)):
            left, top, right, bottom = scaled_box(box, shrink)
            return self.pixels(shrink)[top:bottom, left:right]
        return self._undecoded().part(box, shrink)

    def _undecoded(self) -> Undecoded:
        picture = self.read() if self.opened is None else self.opened
        if isinstance(picture, np.ndarray) or (picture.width, picture.height) != (self.width, self.height):
            raise BadImage(
                "unreadable", "has changed since it was first read: start again, and leave it alone meanwhile"
            )
        return picture
