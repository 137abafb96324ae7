"""Random numbers that are a function of what they are for, and of nothing that happened before."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_UNIT = 2.0**-53


class Draws:
    """The random numbers of one purpose, such as `Draws("augment", seed, epoch, index)`.

    The key is hashed (BLAKE2b) into the key of a Philox counter generator, so equal keys give equal numbers in any
    process, on any platform, in any order, and different keys give independent ones. Only the raw 64-bit output is
    used: NumPy promises that stream for ever, but not what its distributions make of it.
    """

    def __init__(self, *key: str | int) -> None:
        text = "\x1f".join(str(part) for part in key)
        digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()
        self._generator = np.random.Philox(key=np.frombuffer(digest, dtype="<u8").astype(np.uint64))

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high) with 53 random bits."""
        return low + (high - low) * (self._raw() >> 11) * _UNIT

    def integer(self, num: int) -> int:
        """One of 0 ... num - 1, for num up to 2**32 (the bias is under num / 2**64)."""
        return (self._raw() * num) >> 64

    def permutation(self, num: int) -> NDArray[np.int64]:
        """0 ... num - 1 in random order: the order of `num` random 64-bit keys."""
        return np.argsort(self._generator.random_raw(num), kind="stable")

    def _raw(self) -> int:
        return int(self._generator.random_raw())
