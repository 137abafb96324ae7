"""A JPEG's Huffman tables, made ready for walking through its codes several at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from reinception.data.compiled import compiled

LOOKUP_BITS = 12
"""Of the codes ahead as many are looked at together: both tables of a colour then fit the first cache (16 kB)."""

UNKNOWN = 127 << 5
"""What stands in a lookup where no code is known: no bits, and an advance that ends every block."""

# In pictures of 8 bits a first coefficient's difference has up to 11, and another coefficient up to 10.
MOST_DIFFERENCE_BITS, MOST_VALUE_BITS = 11, 10

_NUM_TABLES = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Tables:
    """Huffman tables as `walk` wants them: four for first coefficients, then four for the others."""

    lookup: NDArray[np.uint16]
    last_codes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    symbols: NDArray[np.uint8]
    codes: NDArray[np.uint32]


@lru_cache(maxsize=64)
def tables_of(stored: bytes) -> Tables | None:
    """From what stands in DHT segments; None where it is damaged. Most files share a few sets of tables."""
    found = Tables(
        lookup=np.full((_NUM_TABLES, 1 << LOOKUP_BITS), UNKNOWN, dtype=np.uint16),
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
        parts = (part[table] for part in (found.lookup, found.last_codes, found.offsets, found.codes))
        if not _fill(np.frombuffer(counts, dtype=np.uint8), found.symbols[table], is_dc, *parts):
            return None
        rest = rest[17 + num :]
    return found


@compiled()
def _fill(
    counts: NDArray[np.uint8],
    symbols: NDArray[np.uint8],
    is_dc: bool,
    lookup: NDArray[np.uint16],
    last_codes: NDArray[np.int64],
    offsets: NDArray[np.int64],
    codes: NDArray[np.uint32],
) -> bool:
    """A Huffman table as `walk` wants it, from the number of codes of each length from 1 to 16, and what they mean.

    `lookup` says of the next LOOKUP_BITS bits what they hold: `bits | advance << 5`. For the first coefficient (DC),
    `bits` is the length of the code and `advance` the number of bits of its value. For the others, `bits` is what all
    the codes and values take whose codes end there, `advance` by how many coefficients they lead on, and 64 more where
    the end of the block is among them. Where not even one code ends it is UNKNOWN: no bits, and an advance that ends
    every block. `last_codes` and `offsets` are (17,), by length; `codes`, (12,), are `code << 5 | length` of a first
    coefficient's values. False where there are more codes than can be.
    """
    size = 1 << LOOKUP_BITS
    lengths, meant = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    code, place = 0, 0
    for length in range(1, 17):
        offsets[length] = place - code
        for _ in range(counts[length - 1]):
            if code >= 1 << length:
                return False
            if is_dc and symbols[place] <= MOST_DIFFERENCE_BITS:
                codes[symbols[place]] = code << 5 | length
            if length <= LOOKUP_BITS:
                for ahead in range(code << (LOOKUP_BITS - length), (code + 1) << (LOOKUP_BITS - length)):
                    lengths[ahead], meant[ahead] = length, symbols[place]
            code, place = code + 1, place + 1
        last_codes[length] = code - 1 if counts[length - 1] else -1
        code <<= 1
    for ahead in range(size):
        if is_dc:
            is_known = lengths[ahead] > 0 and meant[ahead] <= MOST_DIFFERENCE_BITS
            lookup[ahead] = lengths[ahead] | meant[ahead] << 5 if is_known else UNKNOWN
            continue
        bits, advance = 0, 0
        while bits < LOOKUP_BITS:
            rest = (ahead << bits) & (size - 1)
            length, run, value_bits = lengths[rest], meant[rest] >> 4, meant[rest] & 15
            if length == 0 or bits + length > LOOKUP_BITS:
                break
            if value_bits == 0 and run != 15:
                if run == 0:
                    bits, advance = bits + length, advance + 64
                break
            if value_bits > MOST_VALUE_BITS or advance + run + 1 > 63:
                break
            bits, advance = bits + length + value_bits, advance + run + 1
        lookup[ahead] = bits | advance << 5 if bits else UNKNOWN
    return True
