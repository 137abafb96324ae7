"""A JPEG's tables, made ready for walking through its codes several at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from reinception.data.images.jpeg_pixels import SLOTS, WEIGHTS
from reinception.data.images.jpeg_reader import LOOKUP_BITS, UNKNOWN, fill

_NUM_TABLES = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Tables:
    """Huffman tables as `walk` wants them: four for first coefficients, then four for the others."""

    lookup: NDArray[np.uint16]
    single: NDArray[np.uint16]
    last_codes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    symbols: NDArray[np.uint8]
    codes: NDArray[np.uint32]


@lru_cache(maxsize=64)
def tables_of(stored: bytes) -> Tables | None:
    """From what stands in DHT segments; None where it is damaged. Most files share a few sets of tables."""
    found = Tables(
        lookup=np.full((_NUM_TABLES, 1 << LOOKUP_BITS), UNKNOWN, dtype=np.uint16),
        single=np.zeros((_NUM_TABLES, 1 << LOOKUP_BITS), dtype=np.uint16),
        last_codes=np.full((_NUM_TABLES, 17), -1, dtype=np.int64),
        offsets=np.zeros((_NUM_TABLES, 17), dtype=np.int64),
        symbols=np.zeros((_NUM_TABLES, 256), dtype=np.uint8),
        codes=np.zeros((_NUM_TABLES, 12), dtype=np.uint32),
    )
    rest = stored
    while rest:
        counts, num = rest[1:17], sum(rest[1:17])
        symbols = rest[17 : 17 + num]
        if len(symbols) < num or num > 256 or rest[0] & 0xEC:
            return None
        is_dc = rest[0] < 16
        table = rest[0] if is_dc else _NUM_TABLES // 2 + (rest[0] & 15)
        found.symbols[table, :num] = np.frombuffer(symbols, dtype=np.uint8)
        parts = (part[table] for part in (found.lookup, found.single, found.last_codes, found.offsets, found.codes))
        if not fill(np.frombuffer(counts, dtype=np.uint8), found.symbols[table], is_dc, *parts):
            return None
        rest = rest[17 + num :]
    return found


@lru_cache(maxsize=64)
def factors_of(stored: bytes, numbers: tuple[int, ...]) -> NDArray[np.int64]:
    """What the coefficients at the 25 slots are worth times their rows' weights, (colours, 25), by what stands in DQT.

    `numbers` are those of the colours' quantisation tables; one that is not there is zero.
    """
    worth = np.zeros((len(numbers), 64), dtype=np.int64)
    rest = stored
    while rest:
        size = 2 if rest[0] >> 4 else 1
        body = rest[1 : 1 + 64 * size].ljust(64 * size, b"\0")
        for colour, number in enumerate(numbers):
            if number == rest[0] & 15:
                worth[colour] = np.frombuffer(body, dtype=">u2" if size == 2 else "u1")
        rest = rest[1 + 64 * size :]
    factors = np.zeros((len(numbers), 26), dtype=np.int64)
    factors[:, list(SLOTS)] = worth  # in the order of the file; what has no slot of its own lands behind the others
    return factors[:, :25] * np.repeat(WEIGHTS, 5)
