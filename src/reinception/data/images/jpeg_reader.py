"""Reading the Huffman codes of a JPEG: several a step to get past them, or one by one for what they say.

Numbers that codes are made of are unsigned throughout, because numba turns a mixture of signed and unsigned ones into
floating point; and functions pass on their state piece by piece, because that is what it keeps in registers.
"""

from __future__ import annotations

import numpy as np
from numba import int64, uint64
from numpy.typing import NDArray

from reinception.data.images.compiled import compiled, inlined, lean
from reinception.data.images.jpeg_pixels import SLOTS

Word = np.uint64
ReaderState = tuple[Word, Word, Word, Word, Word]

LOOKUP_BITS = 12
"""Of the codes ahead as many are looked at together: both tables of a colour then fit the first cache (16 kB)."""

UNKNOWN = 127 << 5
"""What stands in a lookup where no code is known: no bits, and an advance that ends every block."""

# In pictures of 8 bits a first coefficient's difference has up to 11, and another coefficient up to 10.
MOST_DIFFERENCE_BITS, MOST_VALUE_BITS = 11, 10

NOTHING, ONE, EIGHT, HALF, WORD = uint64(0), uint64(1), uint64(8), uint64(32), uint64(64)
FIVE, LENGTH = uint64(5), uint64(31)
LAST = uint64(63)  # the place of a block's last coefficient

_AHEAD = uint64(64 - LOOKUP_BITS)
_ADVANCE_UNKNOWN = uint64(127)
_LOW_BITS, _HIGH_BITS = uint64(0x0101010101010101), uint64(0x8080808080808080)
_SIXTEEN_ZEROS = uint64(0xF0)
_SLOTS = np.array(SLOTS, dtype=np.uint64)


@compiled()
def fill(
    counts: NDArray[np.uint8],
    symbols: NDArray[np.uint8],
    is_dc: bool,
    lookup: NDArray[np.uint16],
    single: NDArray[np.uint16],
    last_codes: NDArray[np.int64],
    offsets: NDArray[np.int64],
    codes: NDArray[np.uint32],
) -> bool:
    """A Huffman table as the reader wants it, from the number of codes of each length from 1 to 16, and what they mean.

    `lookup` says of the next LOOKUP_BITS bits what they hold: `bits | advance << 5`. For the first coefficient (DC),
    `bits` is the length of the code and `advance` the number of bits of its value. For the others, `bits` is what all
    the codes and values take whose codes end there, `advance` by how many coefficients they lead on, and 64 more where
    the end of the block is among them. Where not even one code ends it is UNKNOWN: no bits, and an advance that ends
    every block. `single` is of the first of them alone: `bits | zeros before it << 5 | bits of its value << 9`, or 0.
    `last_codes` and `offsets` are (17,), by length; `codes`, (12,), are `code << 5 | length` of a first
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
        length, run, value_bits = lengths[ahead], meant[ahead] >> 4, meant[ahead] & 15
        if length > 0 and value_bits <= MOST_VALUE_BITS:
            single[ahead] = length + value_bits | run << 5 | value_bits << 9
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


# A reader's state is (at, word, held, stuffed, invented): where the next byte is read; the bits read and not used yet,
# at the top of a word of 64, and how many of them count; how many stuffed zeros were left out; how many bits were
# invented at the end, or at a mark. The bits used so far are 8 (at - stuffed) + invented - held.


@lean
def _refill_slowly(
    data: NDArray[np.uint8], at: Word, word: Word, held: Word, stuffed: Word, invented: Word
) -> ReaderState:
    """Byte by byte, past the zeros that are stuffed in behind each 255."""
    word = (word >> (WORD - held)) << (WORD - held) if held else NOTHING
    size = uint64(len(data))
    while held < uint64(56):  # no more than 63, so that there is always something to shift
        byte = NOTHING
        if at < size and (data[at] != 255 or (at + ONE < size and data[at + ONE] == 0)):
            byte = uint64(data[at])
            at += ONE
            if byte == uint64(255):
                at, stuffed = at + ONE, stuffed + ONE
        else:
            invented += EIGHT
        word |= byte << (uint64(56) - held)
        held += EIGHT
    return at, word, held, stuffed, invented


@inlined
def refill(data: NDArray[np.uint8], at: Word, word: Word, held: Word, stuffed: Word, invented: Word) -> ReaderState:
    """At least 56 bits in the word."""
    if at + EIGHT <= uint64(len(data)):
        ahead = (
            uint64(data[at]) << uint64(56)
            | uint64(data[at + uint64(1)]) << uint64(48)
            | uint64(data[at + uint64(2)]) << uint64(40)
            | uint64(data[at + uint64(3)]) << uint64(32)
            | uint64(data[at + uint64(4)]) << uint64(24)
            | uint64(data[at + uint64(5)]) << uint64(16)
            | uint64(data[at + uint64(6)]) << uint64(8)
            | uint64(data[at + uint64(7)])
        )
        if (~ahead - _LOW_BITS) & ahead & _HIGH_BITS == NOTHING:  # none of the eight is 255
            taken = (LAST - held) >> uint64(3)
            return at + taken, word | ahead >> held, held | uint64(56), stuffed, invented
    return _refill_slowly(data, at, word, held, stuffed, invented)


@lean
def symbol(
    word: Word, table: int, last_codes: NDArray[np.int64], offsets: NDArray[np.int64], symbols: NDArray[np.uint8]
) -> tuple[Word, Word]:
    """(length of the code, what it means) for a code of any length; the length is 0 where there is no such code."""
    for length in range(1, 17):
        code = int64(word >> uint64(64 - length))
        if code <= last_codes[table, length]:
            return uint64(length), uint64(symbols[table, offsets[table, length] + code])
    return NOTHING, NOTHING


@inlined
def signed(word: Word, length: Word, value_bits: Word) -> np.int64:
    """The value of up to 63 bits behind a code: one that begins with a zero stands for a negative number."""
    value = int64(((word << length) >> ONE) >> (LAST - value_bits))
    return value if value >= (1 << int64(value_bits)) >> 1 else value - (1 << int64(value_bits)) + 1


@inlined
def first(
    word: Word,
    table: int,
    lookup: NDArray[np.uint16],
    last_codes: NDArray[np.int64],
    offsets: NDArray[np.int64],
    symbols: NDArray[np.uint8],
) -> tuple[Word, np.int64]:
    """(bits, up to 27, value) of a block's first coefficient, as a difference; 0 bits where the code is damaged."""
    entry = uint64(lookup[uint64(table << LOOKUP_BITS) + (word >> _AHEAD)])
    length, value_bits = entry & LENGTH, entry >> FIVE
    if length == NOTHING:
        length, value_bits = symbol(word, table, last_codes, offsets, symbols)
        if value_bits > uint64(MOST_DIFFERENCE_BITS):
            length, value_bits = NOTHING, NOTHING
    return length + value_bits, signed(word, length, value_bits)


@inlined
def others(
    data: NDArray[np.uint8],
    at: Word,
    word: Word,
    held: Word,
    stuffed: Word,
    invented: Word,
    table: int,
    lookup: NDArray[np.uint16],
    last_codes: NDArray[np.int64],
    offsets: NDArray[np.int64],
    symbols: NDArray[np.uint8],
) -> tuple[Word, Word, Word, Word, Word, bool]:
    """Past the other 63; the last of the result is False where they are damaged. The word has 29 bits or more."""
    base, done = uint64(table << LOOKUP_BITS), NOTHING
    is_valid = True
    while True:
        entry = uint64(lookup[base + (word >> _AHEAD)])
        length, advance = entry & LENGTH, entry >> FIVE
        done += advance
        if done < LAST:
            word, held = word << length, held - length
            at, word, held, stuffed, invented = refill(data, at, word, held, stuffed, invented)
            # One step takes up to 22 bits, so the word has enough for a second one, and the next first one.
            entry = uint64(lookup[base + (word >> _AHEAD)])
            length, advance = entry & LENGTH, entry >> FIVE
            done += advance
            if done < LAST:
                word, held = word << length, held - length
                continue
        # 63 is the last coefficient, and 64 or more the marked end of a block; unless the codes lead on into the next
        # block, or not even one of them is known: then one is read at its full length.
        is_end = length != NOTHING and (done == LAST or (advance >= WORD and done < _ADVANCE_UNKNOWN))
        if not is_end:
            done -= advance
            length, meaning = symbol(word, table, last_codes, offsets, symbols)
            value_bits = meaning & uint64(15)
            done += (meaning >> uint64(4)) + ONE
            is_end = meaning == NOTHING or done >= LAST
            is_run = value_bits != NOTHING or meaning == _SIXTEEN_ZEROS
            is_valid = length != NOTHING and (
                meaning == NOTHING or (done <= LAST and is_run and value_bits <= uint64(MOST_VALUE_BITS))
            )
            is_end = is_end or not is_valid
            length += value_bits
        word, held = word << length, held - length
        if is_end:
            break
        at, word, held, stuffed, invented = refill(data, at, word, held, stuffed, invented)
    return at, word, held, stuffed, invented, is_valid


@inlined
def coefficient(
    word: Word,
    table: int,
    single: NDArray[np.uint16],
    last_codes: NDArray[np.int64],
    offsets: NDArray[np.int64],
    symbols: NDArray[np.uint8],
) -> tuple[Word, Word, np.int64]:
    """(bits, up to 26, zeros before it, value) of what comes next, 0 being the end and 15 zeros; 0 bits: damaged."""
    entry = uint64(single[uint64(table), word >> _AHEAD])
    length, run, value_bits = entry & LENGTH, (entry >> FIVE) & uint64(15), entry >> uint64(9)
    if length == NOTHING:
        length, meaning = symbol(word, table, last_codes, offsets, symbols)
        value_bits, run = meaning & uint64(15), meaning >> uint64(4)
        length += value_bits
        if value_bits > uint64(MOST_VALUE_BITS):
            length, value_bits = NOTHING, NOTHING
    return length, run, signed(word, length - value_bits, value_bits)


@lean
def coefficients_of(
    data: NDArray[np.uint8],
    at: Word,
    word: Word,
    held: Word,
    stuffed: Word,
    invented: Word,
    table: int,
    single: NDArray[np.uint16],
    last_codes: NDArray[np.int64],
    offsets: NDArray[np.int64],
    symbols: NDArray[np.uint8],
    coefficients: NDArray[np.int64],
) -> tuple[Word, Word, Word, Word, Word, bool]:
    """A block's coefficients but the first, to their slots; the last of the result is False where they are damaged."""
    place = NOTHING
    while place < LAST:
        at, word, held, stuffed, invented = refill(data, at, word, held, stuffed, invented)
        for _ in range(2):  # of up to 26 bits each
            length, run, value = coefficient(word, table, single, last_codes, offsets, symbols)
            word, held, place = word << length, held - length, place + run + ONE
            if value == 0 and run < uint64(15):
                return at, word, held, stuffed, invented, length != NOTHING and run == NOTHING
            if place > LAST or length == NOTHING:
                return at, word, held, stuffed, invented, False
            coefficients[_SLOTS[place]] = value
            if place == LAST:
                break
    return at, word, held, stuffed, invented, True
