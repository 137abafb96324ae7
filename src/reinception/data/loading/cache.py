"""Shared-memory cache of decoded images, used by all loader processes, up to a bound."""

from __future__ import annotations

import mmap
import multiprocessing
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reinception.data.images.decode import Pixels
from reinception.data.images.jpeg import TrainingImage, UndecodedJpeg
from reinception.data.loading.workers import START_METHOD
from reinception.errors import BadImage

# An image has a row for full size and one for each decode scale that is small enough to keep: with a sixteenth of the
# pixels or fewer, a gigabyte holds 380 images of 12 megapixels at both.
_ROWS = {1: 0, 4: 1, 8: 2}
_KEPT_SCALES = (4, 8)


class PixelCache:
    """Up to `num_bytes` of decoded images, each decoded by whichever process needs it first.

    The memory is an anonymous shared mapping made before the workers are forked: it needs no room in /dev/shm, is
    written once, and only what is used counts. Images that find no room are decoded each time. The lock between
    processes (`is_shared`) does need /dev/shm; one process has a lock of its own.
    """

    def __init__(self, num_images: int, num_bytes: int, *, is_shared: bool = True) -> None:
        self._num_bytes = num_bytes
        self._pixels = np.frombuffer(mmap.mmap(-1, max(num_bytes, 1)), dtype=np.uint8)
        # Height, width, channels, offset: all zero until the pixels are written; 0 channels for a large JPEG's size.
        shape = (max(num_images, 1), len(_ROWS), 4)
        self._table = np.frombuffer(mmap.mmap(-1, 8 * int(np.prod(shape))), dtype=np.int64).reshape(shape)
        self._used = np.frombuffer(mmap.mmap(-1, 8), dtype=np.int64)
        self._lock = multiprocessing.get_context(START_METHOD).Lock() if is_shared else threading.Lock()

    @property
    def num_bytes_used(self) -> int:
        """Bytes of pixels kept so far."""
        return int(self._used[0])

    def get(self, index: int, read: Callable[[], TrainingImage]) -> TrainingImage:
        """The image at `index`, read-only when it comes from memory; `read` is called when it is not there yet.

        Of a large JPEG the size is kept, and the scales of it that are asked for and small.
        """
        with self._lock:
            height, width, channels, _ = self._table[index, 0].tolist()
        if channels:
            return self._kept(index, 1)
        if height:
            return _LargeJpeg(cache=self, index=index, width=width, height=height, opened=None, read=read)
        image = read()
        if isinstance(image, np.ndarray):
            self.keep(index, 1, image)
            return image
        width, height = image.width, image.height
        with self._lock:
            self._table[index, 0] = (height, width, 0, 0)
        return _LargeJpeg(cache=self, index=index, width=width, height=height, opened=image, read=read)

    def scale(self, index: int, scale_denominator: int) -> Pixels | None:
        """The image at that scale, where it is kept."""
        if scale_denominator not in _KEPT_SCALES:
            return None
        with self._lock:
            is_kept = self._table[index, _ROWS[scale_denominator], 0] > 0
        return self._kept(index, scale_denominator) if is_kept else None

    def keep(self, index: int, scale_denominator: int, pixels: Pixels) -> None:
        """Keep the image at that scale, one of _ROWS, if there is room."""
        with self._lock:
            offset = int(self._used[0])
            if offset + pixels.size > self._num_bytes:
                return
            self._used[0] = offset + pixels.size
        self._pixels[offset : offset + pixels.size] = pixels.reshape(-1)
        channels = pixels.shape[2] if pixels.ndim == 3 else 1
        with self._lock:
            self._table[index, _ROWS[scale_denominator]] = (*pixels.shape[:2], channels, offset)

    def _kept(self, index: int, scale_denominator: int) -> Pixels:
        height, width, channels, offset = self._table[index, _ROWS[scale_denominator]].tolist()
        kept = self._pixels[offset : offset + height * width * channels]
        kept.flags.writeable = False
        return kept.reshape((height, width, channels) if channels > 1 else (height, width))


@dataclass(frozen=True, kw_only=True, eq=False)
class _LargeJpeg:
    """A large JPEG whose small scales are kept; it is read again when another scale is asked for."""

    cache: PixelCache
    index: int
    width: int
    height: int
    opened: UndecodedJpeg | None
    read: Callable[[], TrainingImage]

    def pixels(self, scale_denominator: int) -> Pixels:
        kept = self.cache.scale(self.index, scale_denominator)
        if kept is not None:
            return kept
        pixels = self._undecoded().pixels(scale_denominator)
        if scale_denominator in _KEPT_SCALES:
            self.cache.keep(self.index, scale_denominator, pixels)
        return pixels

    def _undecoded(self) -> UndecodedJpeg:
        image = self.read() if self.opened is None else self.opened
        if isinstance(image, np.ndarray) or (image.width, image.height) != (self.width, self.height):
            raise BadImage(
                "", "unreadable", "has changed since it was first read: start again, and leave it alone meanwhile"
            )
        return image
