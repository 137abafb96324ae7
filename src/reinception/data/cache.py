"""Decoded pictures kept in memory that the loader's processes share, up to a bound."""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from reinception.data.decode import Pixels
from reinception.data.workers import START_METHOD

Other = TypeVar("Other")


class PixelCache:
    """Up to `num_bytes` of decoded pictures, each decoded by whichever process needs it first.

    The memory is an anonymous shared mapping made before the workers are forked: it needs no room in /dev/shm, is
    written once, and only what is used counts. Pictures that find no room are decoded each time.
    """

    def __init__(self, num_pictures: int, num_bytes: int) -> None:
        self._num_bytes = num_bytes
        self._pixels = np.frombuffer(mmap.mmap(-1, max(num_bytes, 1)), dtype=np.uint8)
        # One row per picture: height, width, channels, offset; all zero until its pixels are written.
        self._table = np.frombuffer(mmap.mmap(-1, max(num_pictures, 1) * 4 * 8), dtype=np.int64).reshape(-1, 4)
        self._used = np.frombuffer(mmap.mmap(-1, 8), dtype=np.int64)
        self._lock = multiprocessing.get_context(START_METHOD).Lock()

    @property
    def num_bytes_used(self) -> int:
        """Bytes of pixels kept so far."""
        return int(self._used[0])

    def get(self, index: int, decode: Callable[[], Pixels | Other]) -> Pixels | Other:
        """The picture at `index`, read-only when it comes from memory; `decode` is called when it is not there yet.

        Only pixels are kept: what else `decode` may return is handed on.
        """
        with self._lock:
            height, width, channels, offset = self._table[index].tolist()
        if height == 0:
            pixels = decode()
            if isinstance(pixels, np.ndarray):
                self._keep(index, pixels)
            return pixels
        kept = self._pixels[offset : offset + height * width * channels]
        kept.flags.writeable = False
        return kept.reshape((height, width, channels) if channels > 1 else (height, width))

    def _keep(self, index: int, pixels: Pixels) -> None:
        with self._lock:
            offset = int(self._used[0])
            if offset + pixels.size > self._num_bytes:
                return
            self._used[0] = offset + pixels.size
        self._pixels[offset : offset + pixels.size] = pixels.reshape(-1)
        with self._lock:
            self._table[index] = (*pixels.shape[:2], pixels.shape[2] if pixels.ndim == 3 else 1, offset)
