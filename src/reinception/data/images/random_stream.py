"""Counter-based (Philox) random streams keyed by purpose, seed, epoch and index."""

from __future__ import annotations

import hashlib
import threading

import numpy as np
from numpy.typing import NDArray

_UNIT = 2.0**-53
_CHUNK = 16
_EMPTY = np.zeros(4, dtype=np.uint64)


class _Generators(threading.local):
    """One generator for each thread: to make one takes ten times as long as to give it another key."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(key=0)


_OF_THIS_THREAD = _Generators()


class RandomStream:
    """The random numbers of one purpose, such as `RandomStream("augment", seed, epoch, index)`.

    The key is hashed (BLAKE2b) into the key of a Philox counter generator, so equal keys give equal numbers in any
    process, on any platform, in any order, and different keys give independent ones. Only the raw 64-bit output is
    used: NumPy guarantees that stream, but not its distributions.
    """

    def __init__(self, *key: str | int) -> None:
        text = "\x1f".join(str(part) for part in key)
        digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()
        self._key = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
        self._num_used = 0
        self._waiting: list[int] = []  # the next numbers, in reverse order

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high) with 53 random bits."""
        return low + (high - low) * (self._raw() >> 11) * _UNIT

    def integer(self, num: int) -> int:
        """One of 0 ... num - 1, for num up to 2**32 (the bias is under num / 2**64)."""
        return (self._raw() * num) >> 64

    def permutation(self, num: int) -> NDArray[np.int64]:
        """0 ... num - 1 in random order: the order of `num` random 64-bit keys."""
        keys = self._numbered(self._num_used, num)
        self._num_used += num
        self._waiting.clear()
        return np.argsort(keys, kind="stable")

    def _raw(self) -> int:
        if not self._waiting:
            self._waiting = self._numbered(self._num_used, _CHUNK)[::-1].tolist()
        self._num_used += 1
        return self._waiting.pop()

    def _numbered(self, first: int, num: int) -> NDArray[np.uint64]:
        """The numbers from position `first` on; a step of the counter gives four."""
        step, over = divmod(first, 4)
        generator = _OF_THIS_THREAD.philox
        generator.state = {
            "bit_generator": "Philox",
            "state": {"counter": np.array([step, 0, 0, 0], dtype=np.uint64), "key": self._key},
            "buffer": _EMPTY,
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        return generator.random_raw(over + num)[over:]
