"""Through the Huffman codes of a JPEG at a walk: several codes a step where no pixel needs them, copied where one does.

Numbers that codes are made of are unsigned throughout, because numba turns a mixture of signed and unsigned ones into
floating point; and functions pass on their state piece by piece, because that is what it keeps in registers.
"""

from __future__ import annotations

import numpy as np
from numba import int64, uint64
from numpy.typing import NDArray

from reinception.data.compiled import compiled, inlined, lean
from reinception.data.jpeg_tables import LOOKUP_BITS, MOST_DIFFERENCE_BITS, MOST_VALUE_BITS

Word = np.uint64
ReaderState = tuple[Word, Word, Word, Word, Word]

DONE, FAILED = 0, -1

_AHEAD = uint64(64 - LOOKUP_BITS)
_FIVE, _LENGTH = uint64(5), uint64(31)
_ADVANCE_UNKNOWN = uint64(127)
_LAST = uint64(63)  # the place of a block's last coefficient
_NOTHING, _ONE, _EIGHT, _HALF, _WORD = uint64(0), uint64(1), uint64(8), uint64(32), uint64(64)
_LOW_BITS, _HIGH_BITS = uint64(0x0101010101010101), uint64(0x8080808080808080)
_SIXTEEN_ZEROS = uint64(0xF0)
_RESTART = 0xD0


# A reader's state is (at, word, held, stuffed, invented): where the next byte is read; the bits read and not used yet,
# at the top of a word of 64, and how many of them count; how many stuffed zeros were left out; how many bits were
# invented at the end, or at a mark. The bits used so far are 8 (at - stuffed) + invented - held.


@lean
def _refill_slowly(
    data: NDArray[np.uint8], at: Word, word: Word, held: Word, stuffed: Word, invented: Word
) -> ReaderState:
    """Byte by byte, past the zeros that are stuffed in behind each 255."""
    word = (word >> (_WORD - held)) << (_WORD - held) if held else _NOTHING
    size = uint64(len(data))
    while held < uint64(56):  # no more than 63, so that there is always something to shift
        byte = _NOTHING
        if at < size and (data[at] != 255 or (at + _ONE < size and data[at + _ONE] == 0)):
            byte = uint64(data[at])
            at += _ONE
            if byte == uint64(255):
                at, stuffed = at + _ONE, stuffed + _ONE
        else:
            invented += _EIGHT
        word |= byte << (uint64(56) - held)
        held += _EIGHT
    return at, word, held, stuffed, invented


@inlined
def _refill(data: NDArray[np.uint8], at: Word, word: Word, held: Word, stuffed: Word, invented: Word) -> ReaderState:
    """At least 56 bits in the word."""
    if at + _EIGHT <= uint64(len(data)):
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
        if (~ahead - _LOW_BITS) & ahead & _HIGH_BITS == _NOTHING:  # none of the eight is 255
            taken = (_LAST - held) >> uint64(3)
            return at + taken, word | ahead >> held, held | uint64(56), stuffed, invented
    return _refill_slowly(data, at, word, held, stuffed, invented)


@lean
def _symbol(
    word: Word, table: int, last_codes: NDArray[np.int64], offsets: NDArray[np.int64], symbols: NDArray[np.uint8]
) -> tuple[Word, Word]:
    """(length of the code, what it means) for a code of any length; the length is 0 where there is no such code."""
    for length in range(1, 17):
        code = int64(word >> uint64(64 - length))
        if code <= last_codes[table, length]:
            return uint64(length), uint64(symbols[table, offsets[table, length] + code])
    return _NOTHING, _NOTHING


@inlined
def _first(
    word: Word,
    table: int,
    lookup: NDArray[np.uint16],
    last_codes: NDArray[np.int64],
    offsets: NDArray[np.int64],
    symbols: NDArray[np.uint8],
) -> tuple[Word, int]:
    """(bits, up to 27, value) of a block's first coefficient, as a difference; 0 bits where the code is damaged."""
    entry = uint64(lookup[uint64(table << LOOKUP_BITS) + (word >> _AHEAD)])
    length, value_bits = entry & _LENGTH, entry >> _FIVE
    if length == _NOTHING:
        length, value_bits = _symbol(word, table, last_codes, offsets, symbols)
        if value_bits > uint64(MOST_DIFFERENCE_BITS):
            length, value_bits = _NOTHING, _NOTHING
    value = int64(((word << length) >> _ONE) >> (_LAST - value_bits))
    if value < (1 << int64(value_bits)) >> 1:
        value -= (1 << int64(value_bits)) - 1
    return length + value_bits, value


@inlined
def _others(
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
    base, done = uint64(table << LOOKUP_BITS), _NOTHING
    is_valid = True
    while True:
        entry = uint64(lookup[base + (word >> _AHEAD)])
        length, advance = entry & _LENGTH, entry >> _FIVE
        done += advance
        if done < _LAST:
            word, held = word << length, held - length
            at, word, held, stuffed, invented = _refill(data, at, word, held, stuffed, invented)
            # One step takes up to 22 bits, so the word has enough for a second one, and the next first one.
            entry = uint64(lookup[base + (word >> _AHEAD)])
            length, advance = entry & _LENGTH, entry >> _FIVE
            done += advance
            if done < _LAST:
                word, held = word << length, held - length
                continue
        # 63 is the last coefficient, and 64 or more the marked end of a block; unless the codes lead on into the next
        # block, or not even one of them is known: then one is read at its full length.
        is_end = length != _NOTHING and (done == _LAST or (advance >= _WORD and done < _ADVANCE_UNKNOWN))
        if not is_end:
            done -= advance
            length, meaning = _symbol(word, table, last_codes, offsets, symbols)
            value_bits = meaning & uint64(15)
            done += (meaning >> uint64(4)) + _ONE
            is_end = meaning == _NOTHING or done >= _LAST
            is_run = value_bits != _NOTHING or meaning == _SIXTEEN_ZEROS
            is_valid = length != _NOTHING and (
                meaning == _NOTHING or (done <= _LAST and is_run and value_bits <= uint64(MOST_VALUE_BITS))
            )
            is_end = is_end or not is_valid
            length += value_bits
        word, held = word << length, held - length
        if is_end:
            break
        at, word, held, stuffed, invented = _refill(data, at, word, held, stuffed, invented)
    return at, word, held, stuffed, invented, is_valid


@inlined
def _store(out: NDArray[np.uint32], to: Word, spare: Word) -> None:
    """The upper half of `spare` as the next word of a file."""
    word = spare >> _HALF
    out[to] = (
        (word & uint64(0xFF)) << uint64(24) | (word & uint64(0xFF00)) << uint64(8)
        | (word >> uint64(8)) & uint64(0xFF00) | word >> uint64(24)
    )  # fmt: skip


@lean
def _put(out: NDArray[np.uint32], writer: NDArray[np.uint64], value: Word, length: Word) -> None:
    """Append up to 32 bits. A writer is (full words, the bits after them at the top of a word of 64, their number)."""
    spare, num = writer[1] | value << (_WORD - writer[2] - length), writer[2] + length
    _store(out, writer[0], spare)
    full = num >> uint64(5)
    writer[0], writer[1], writer[2] = writer[0] + full, spare << (full << uint64(5)), num & uint64(31)


@lean
def _copy(
    data: NDArray[np.uint8], at: Word, word: Word, held: Word, length: Word,
    out: NDArray[np.uint32], writer: NDArray[np.uint64],
) -> bool:  # fmt: skip
    """Append the `length` bits that the reader would read; False where there is no room for them."""
    to, spare, num = writer[0], writer[1], writer[2]
    if to + (length >> uint64(5)) + _EIGHT > uint64(len(out)):
        return False
    stuffed, invented = _NOTHING, _NOTHING
    while length > _HALF:
        at, word, held, stuffed, invented = _refill(data, at, word, held, stuffed, invented)
        spare |= (word >> _HALF) << (_HALF - num)
        _store(out, to, spare)
        to, spare = to + _ONE, spare << _HALF
        word, held, length = word << _HALF, held - _HALF, length - _HALF
    writer[0], writer[1] = to, spare
    if length:
        at, word, held, stuffed, invented = _refill(data, at, word, held, stuffed, invented)
        _put(out, writer, word >> (_WORD - length), length)
    return True


@lean
def _close(out: NDArray[np.uint32], writer: NDArray[np.uint64]) -> None:
    """Fill the last byte with ones; from now on the writer's first element counts bytes."""
    rest = writer[2] & uint64(7)
    if rest:
        _put(out, writer, uint64(255) >> rest, _EIGHT - rest)
    _store(out, writer[0], writer[1])
    writer[0] = writer[0] * uint64(4) + (writer[2] >> uint64(3))


@lean
def walk(
    data: NDArray[np.uint8],
    start: int,
    lookup: NDArray[np.uint16],
    last_codes: NDArray[np.int64],
    offsets: NDArray[np.int64],
    symbols: NDArray[np.uint8],
    codes: NDArray[np.uint32],
    blocks: NDArray[np.int64],
    units_across: int,
    window: tuple[int, int, int, int],
    interval: int,
    read: NDArray[np.int64],
    written: NDArray[np.int64],
    means: NDArray[np.int16],
    out: NDArray[np.uint32],
    writers: NDArray[np.uint64],
) -> int:
    """Codes of the units in `window` (left, top, right, bottom), as if the picture held no others.

    `blocks` has a row for each block of a unit: its colour, its tables for the first coefficient and the others, the
    stream its codes go to, its place across and down, and how many there are across and down in a unit. Where the
    stream is -1 nothing is written, but the first coefficient goes to `means[colour]`. `out` has a row for each stream,
    `writers` too: in the end its first element is the number of bytes in `out`. `read` and `written`, (4,), and
    `writers`, (streams, 3), begin with zeros. The tables are those of jpeg_tables.py.

    A first coefficient is coded as its difference from the one before, so it is coded anew where that one is another
    now; everything else is copied, in stretches as long as possible. DONE, or FAILED where the codes are damaged or the
    new ones can not be written with the file's tables.
    """
    left, top, right, bottom = window
    at, word, held, stuffed, invented = uint64(start), _NOTHING, _NOTHING, _NOTHING, _NOTHING
    room = uint64(out.shape[1] - 8)
    copied_to = -1  # the stream whose codes from `copy_from` on are still to be copied
    copy_at, copy_word, copy_held, copy_from = _NOTHING, _NOTHING, _NOTHING, _NOTHING
    until_restart, restarts = interval, 0
    for row in range(bottom):
        for column in range(units_across if row + 1 < bottom else right):
            is_inside = row >= top and left <= column < right
            is_restart = interval > 0 and until_restart == 0
            if not is_inside and copied_to < 0 and not is_restart:
                for block in range(len(blocks)):
                    at, word, held, stuffed, invented = _refill(data, at, word, held, stuffed, invented)
                    length, value = _first(word, blocks[block, 1], lookup, last_codes, offsets, symbols)
                    if length == _NOTHING:
                        return FAILED
                    read[blocks[block, 0]] += value
                    at, word, held, stuffed, invented, is_valid = _others(
                        data, at, word << length, held - length, stuffed, invented,
                        blocks[block, 2], lookup, last_codes, offsets, symbols,
                    )  # fmt: skip
                    if not is_valid:
                        return FAILED
                until_restart -= 1
                continue
            for block in range(len(blocks)):
                colour, dc, ac, stream = blocks[block, 0], blocks[block, 1], blocks[block, 2], blocks[block, 3]
                is_wanted = is_inside and stream >= 0
                is_next = is_wanted and not is_restart and written[colour] == read[colour]
                if copied_to >= 0 and not (is_next and stream == copied_to):
                    length = ((at - stuffed) << uint64(3)) + invented - held - copy_from
                    if not _copy(data, copy_at, copy_word, copy_held, length, out[copied_to], writers[copied_to]):
                        return FAILED
                    copied_to = -1
                if is_restart:
                    # Less than a byte is left of the interval, so all its bytes have been read.
                    if invented > held or at + _ONE >= uint64(len(data)):
                        return FAILED
                    if data[at] != 255 or data[at + _ONE] != _RESTART + restarts % 8:
                        return FAILED
                    at, word, held, invented = at + uint64(2), _NOTHING, _NOTHING, _NOTHING
                    for other in range(len(read)):
                        read[other] = 0
                    until_restart, restarts, is_restart = interval, restarts + 1, False
                at, word, held, stuffed, invented = _refill(data, at, word, held, stuffed, invented)
                if is_next and copied_to < 0:
                    copied_to, copy_at, copy_word, copy_held = stream, at, word, held
                    copy_from = ((at - stuffed) << uint64(3)) + invented - held
                length, value = _first(word, dc, lookup, last_codes, offsets, symbols)
                if length == _NOTHING:
                    return FAILED
                read[colour] += value
                word, held = word << length, held - length
                if is_wanted and not is_next:
                    change, size = read[colour] - written[colour], 0
                    while abs(change) >> size:
                        size += 1
                    code = uint64(codes[dc, size]) if size <= MOST_DIFFERENCE_BITS else _NOTHING
                    if code == _NOTHING or writers[stream, 0] > room:
                        return FAILED
                    bits = uint64(change if change >= 0 else change + (1 << size) - 1)
                    _put(
                        out[stream],
                        writers[stream],
                        code >> _FIVE << uint64(size) | bits,
                        (code & _LENGTH) + uint64(size),
                    )
                    copied_to, copy_at, copy_word, copy_held = stream, at, word, held
                    copy_from = ((at - stuffed) << uint64(3)) + invented - held
                if is_wanted:
                    written[colour] = read[colour]
                elif is_inside:
                    y = (row - top) * blocks[block, 7] + blocks[block, 5]
                    means[colour, y, (column - left) * blocks[block, 6] + blocks[block, 4]] = read[colour]
                at, word, held, stuffed, invented, is_valid = _others(
                    data, at, word, held, stuffed, invented, ac, lookup, last_codes, offsets, symbols
                )
                if not is_valid:
                    return FAILED
            until_restart -= 1
        if invented > held:  # more was read than there is
            return FAILED
    if copied_to >= 0:
        length = ((at - stuffed) << uint64(3)) + invented - held - copy_from
        if not _copy(data, copy_at, copy_word, copy_held, length, out[copied_to], writers[copied_to]):
            return FAILED
    for stream in range(len(writers)):
        _close(out[stream], writers[stream])
    return DONE


@compiled()
def as_pixels(means: NDArray[np.int16], step: int) -> NDArray[np.uint8]:
    """What a decoder at 1/8 makes of first coefficients: `step` is what one of them is worth; (h, w) to (h, w)."""
    pixels = np.empty(means.shape, np.uint8)
    for y in range(means.shape[0]):
        for x in range(means.shape[1]):
            value = (int64(means[y, x]) * step + 4) >> 3
            value = ((value + 512) & 1023) - 512  # as libjpeg's table of limits has it
            pixels[y, x] = min(max(value + 128, 0), 255)
    return pixels


@compiled()
def in_rgb(luma: NDArray[np.uint8], blue: NDArray[np.uint8], red: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """JFIF's colours in libjpeg's integers: 1.402, 0.34414, 0.71414 and 1.772 in units of 2^-16; (h, w, 3)."""
    pixels = np.empty((luma.shape[0], luma.shape[1], 3), np.uint8)
    for y in range(luma.shape[0]):
        for x in range(luma.shape[1]):
            level, b, r = np.int32(luma[y, x]), np.int32(blue[y, x]) - 128, np.int32(red[y, x]) - 128
            pixels[y, x, 0] = min(max(level + ((91881 * r + 32768) >> 16), 0), 255)
            pixels[y, x, 1] = min(max(level + ((-22554 * b - 46802 * r + 32768) >> 16), 0), 255)
            pixels[y, x, 2] = min(max(level + ((116130 * b + 32768) >> 16), 0), 255)
    return pixels
