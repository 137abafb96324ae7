"""Through the codes of a JPEG at a walk: past what no pixel needs, copying or decoding what one does."""

from __future__ import annotations

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from reinception.data.images.compiled import inlined, lean
from reinception.data.images.jpeg_pixels import limited, two_by_two
from reinception.data.images.jpeg_reader import (
    EIGHT,
    FIVE,
    HALF,
    LENGTH,
    MOST_DIFFERENCE_BITS,
    NOTHING,
    ONE,
    WORD,
    Word,
    coefficients_of,
    first,
    others,
    refill,
)

DONE, FAILED = 0, -1

_RESTART = 0xD0


@inlined
def _store(out: NDArray[np.uint32], to: Word, spare: Word) -> None:
    """The upper half of `spare` as the next word of a file."""
    word = spare >> HALF
    out[to] = (
        (word & uint64(0xFF)) << uint64(24) | (word & uint64(0xFF00)) << uint64(8)
        | (word >> uint64(8)) & uint64(0xFF00) | word >> uint64(24)
    )  # fmt: skip


@lean
def _put(out: NDArray[np.uint32], writer: NDArray[np.uint64], value: Word, length: Word) -> None:
    """Append up to 32 bits. A writer is (full words, the bits after them at the top of a word of 64, their number)."""
    spare, num = writer[1] | value << (WORD - writer[2] - length), writer[2] + length
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
    if to + (length >> uint64(5)) + EIGHT > uint64(len(out)):
        return False
    stuffed, invented = NOTHING, NOTHING
    while length > HALF:
        at, word, held, stuffed, invented = refill(data, at, word, held, stuffed, invented)
        spare |= (word >> HALF) << (HALF - num)
        _store(out, to, spare)
        to, spare = to + ONE, spare << HALF
        word, held, length = word << HALF, held - HALF, length - HALF
    writer[0], writer[1] = to, spare
    if length:
        at, word, held, stuffed, invented = refill(data, at, word, held, stuffed, invented)
        _put(out, writer, word >> (WORD - length), length)
    return True


@lean
def _close(out: NDArray[np.uint32], writer: NDArray[np.uint64]) -> None:
    """Fill the last byte with ones; from now on the writer's first element counts bytes."""
    rest = writer[2] & uint64(7)
    if rest:
        _put(out, writer, uint64(255) >> rest, EIGHT - rest)
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
    side: int,
    factors: NDArray[np.int64],
    single: NDArray[np.uint16],
    coefficients: NDArray[np.int64],
    planes: NDArray[np.uint8],
    out: NDArray[np.uint32],
    writers: NDArray[np.uint64],
) -> int:
    """Codes of the units in `window` (left, top, right, bottom), as if the picture held no others.

    `blocks` has a row for each block of a unit: its colour, its tables for the first coefficient and the others, the
    stream its codes go to, its place across and down, and how many there are across and down in a unit. Where the
    stream is -1 no codes are written, but the block's `side` by `side` pixels (1 or 2) go to `planes[colour]`. `out`
    has a row for each stream, `writers` too: in the end its first element is the number of bytes in `out`. `read` and
    `written`, (4,), `coefficients`, (36,), and `writers`, (streams, 3), begin with
    zeros. The tables and `factors` are those of jpeg_tables.py.

    A first coefficient is coded as its difference from the one before, so it is coded anew where that one is another
    now; everything else is copied, in stretches as long as possible. DONE, or FAILED where the codes are damaged or the
    new ones can not be written with the file's tables.
    """
    left, top, right, bottom = window
    at, word, held, stuffed, invented = uint64(start), NOTHING, NOTHING, NOTHING, NOTHING
    room = uint64(out.shape[1] - 8)
    copied_to = -1  # the stream whose codes from `copy_from` on are still to be copied
    copy_at, copy_word, copy_held, copy_from = NOTHING, NOTHING, NOTHING, NOTHING
    until_restart, restarts = interval, 0
    for row in range(bottom):
        for column in range(units_across if row + 1 < bottom else right):
            is_inside = row >= top and left <= column < right
            is_restart = interval > 0 and until_restart == 0
            if not is_inside and copied_to < 0 and not is_restart:
                for block in range(len(blocks)):
                    at, word, held, stuffed, invented = refill(data, at, word, held, stuffed, invented)
                    length, value = first(word, blocks[block, 1], lookup, last_codes, offsets, symbols)
                    if length == NOTHING:
                        return FAILED
                    read[blocks[block, 0]] += value
                    at, word, held, stuffed, invented, is_valid = others(
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
                    if invented > held or at + ONE >= uint64(len(data)):
                        return FAILED
                    if data[at] != 255 or data[at + ONE] != _RESTART + restarts % 8:
                        return FAILED
                    at, word, held, invented = at + uint64(2), NOTHING, NOTHING, NOTHING
                    for other in range(len(read)):
                        read[other] = 0
                    until_restart, restarts, is_restart = interval, restarts + 1, False
                at, word, held, stuffed, invented = refill(data, at, word, held, stuffed, invented)
                if is_next and copied_to < 0:
                    copied_to, copy_at, copy_word, copy_held = stream, at, word, held
                    copy_from = ((at - stuffed) << uint64(3)) + invented - held
                length, value = first(word, dc, lookup, last_codes, offsets, symbols)
                if length == NOTHING:
                    return FAILED
                read[colour] += value
                word, held = word << length, held - length
                if is_wanted and not is_next:
                    change, size = read[colour] - written[colour], 0
                    while abs(change) >> size:
                        size += 1
                    code = uint64(codes[dc, size]) if size <= MOST_DIFFERENCE_BITS else NOTHING
                    if code == NOTHING or writers[stream, 0] > room:
                        return FAILED
                    bits = uint64(change if change >= 0 else change + (1 << size) - 1)
                    _put(
                        out[stream],
                        writers[stream],
                        code >> FIVE << uint64(size) | bits,
                        (code & LENGTH) + uint64(size),
                    )
                    copied_to, copy_at, copy_word, copy_held = stream, at, word, held
                    copy_from = ((at - stuffed) << uint64(3)) + invented - held
                if is_wanted:
                    written[colour] = read[colour]
                elif is_inside:
                    y = side * ((row - top) * blocks[block, 7] + blocks[block, 5])
                    x = side * ((column - left) * blocks[block, 6] + blocks[block, 4])
                    coefficients[0] = read[colour]
                    if side == 1:
                        value = (read[colour] * factors[colour, 0] + (1 << 17)) >> 18
                        planes[colour, y, x] = limited(((value + 512) & 1023) - 512)  # as libjpeg's table has it
                    else:
                        at, word, held, stuffed, invented, is_valid = coefficients_of(
                            data,
                            at,
                            word,
                            held,
                            stuffed,
                            invented,
                            ac,
                            single,
                            last_codes,
                            offsets,
                            symbols,
                            coefficients,
                        )
                        if not is_valid:
                            return FAILED
                        two_by_two(coefficients, factors[colour], planes[colour], y, x)
                        continue
                at, word, held, stuffed, invented, is_valid = others(
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
