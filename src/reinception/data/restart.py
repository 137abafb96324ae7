"""JPEG with restart markers: the part of the file that holds a part of the picture, as a smaller JPEG.

Between two markers the entropy code starts afresh, so whole stretches of it can be left out before anything is decoded.
Phones, webcams and photo editors write such markers, and `data pack` does where it writes pictures anew.
Source: ITU-T T.81, B.2 (layout of the file), E.2.4 (restart intervals), A.2 (the order of blocks).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are just outside."""

_SEQUENTIAL = (0xC0, 0xC1)
_TABLES = (0xC4, 0xDB, 0xEE)  # of Huffman codes and of quantisation; Adobe's note on the colours is neither, but needed
_RESTART_INTERVAL, _START_OF_SCAN, _END, _FIRST_RESTART = 0xDD, 0xDA, b"\xff\xd9", 0xD0
_BLOCK = 8
# Smoothly enlarged colours look at the neighbouring blocks; a picture's edge is treated otherwise.
_MARGIN = 1


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where things are: `head` is all before the scan's data, with its size at `size_at`, in pixels `width`, `height`.

    The unit is the smallest that the scan codes, `unit_width` x `unit_height` pixels; `interval` units stand between
    two markers. The scan's data begin at `scan`.
    """

    head: bytes
    size_at: int
    width: int
    height: int
    unit_width: int
    unit_height: int
    interval: int
    scan: int


def restart_interval(data: bytes) -> int:
    """Coded units between two restart markers; 0 where there are none or the file is not sequential in one scan."""
    layout = _layout(data)
    return 0 if layout is None else layout.interval


def cut(data: bytes, box: Box) -> tuple[bytes, int, int] | None:
    """(a smaller JPEG, left, top): what of the stored picture surrounds `box`, and where in it that lies.

    Its pixels inside the box, at any of the decoder's scales, are those of the whole picture; left and top are
    multiples of 8. None where nothing can be left out, or where the markers are not those the head announces.
    """
    layout = _layout(data)
    if layout is None or not layout.interval:
        return None
    across, down = -(-layout.width // layout.unit_width), -(-layout.height // layout.unit_height)
    scan = np.frombuffer(data, dtype=np.uint8, offset=layout.scan)
    marks, end = _marks(scan)
    if end is None or len(marks) + 1 != -(-across * down // layout.interval):
        return None
    starts, ends = np.concatenate([[0], marks + 2]), np.concatenate([marks, [end]])
    first, last = _with_margin(box[1], box[3], layout.unit_height, down)
    left, right = 0, across
    if layout.interval % across == 0:  # an interval is one row of units or several
        rows = layout.interval // across
        pieces = [(first // rows, -(-last // rows))]
        first, last = pieces[0][0] * rows, min(pieces[0][1] * rows, down)
    elif across % layout.interval == 0:  # a row is several intervals
        per_row = across // layout.interval
        left, right = _with_margin(box[0], box[2], layout.unit_width, across)
        begin, beyond = left // layout.interval, -(-right // layout.interval)
        left, right = begin * layout.interval, beyond * layout.interval
        pieces = [(row * per_row + begin, row * per_row + beyond) for row in range(first, last)]
    else:
        return None
    if (left, first, right, last) == (0, 0, across, down):
        return None
    body = b"\xff\xd0".join(data[layout.scan + starts[a] : layout.scan + ends[b - 1]] for a, b in pieces)
    width = min(right * layout.unit_width, layout.width) - left * layout.unit_width
    height = min(last * layout.unit_height, layout.height) - first * layout.unit_height
    head = bytearray(layout.head)
    head[layout.size_at : layout.size_at + 4] = height.to_bytes(2) + width.to_bytes(2)
    return bytes(head) + _numbered(body) + _END, left * layout.unit_width, first * layout.unit_height


def _with_margin(low: int, high: int, unit: int, num: int) -> tuple[int, int]:
    """The units that pixels low ... high - 1 lie in, and one more on each side where there is one."""
    return max(low // unit - _MARGIN, 0), min(-(-high // unit) + _MARGIN, num)


def _marks(scan: NDArray[np.uint8]) -> tuple[NDArray[np.intp], int | None]:
    """Where the restart markers are, and where the scan ends: None where the order is not regular."""
    places = np.flatnonzero(scan[:-1] == 0xFF)
    places = places[scan[places + 1] != 0]  # 0xFF 0x00 is a coded 0xFF
    codes = scan[places + 1].astype(np.int64)
    others = np.flatnonzero((codes < _FIRST_RESTART) | (codes > _FIRST_RESTART + 7))
    if not len(others) or codes[others[0]] != _END[1]:
        return places, None
    num = int(others[0])
    in_order = np.array_equal(codes[:num], _FIRST_RESTART + np.arange(num) % 8)
    return places[:num], int(places[num]) if in_order else None


def _numbered(body: bytes) -> bytes:
    """The data with its restart markers counted from 0 again."""
    codes = np.frombuffer(bytearray(body), dtype=np.uint8)
    places = np.flatnonzero(codes[:-1] == 0xFF) + 1
    places = places[codes[places] != 0]
    codes[places] = _FIRST_RESTART + np.arange(len(places)) % 8
    return codes.tobytes()


def _layout(data: bytes) -> _Layout | None:
    kept, position = [b"\xff\xd8"], 2
    frame, interval, size_at = b"", 0, 0
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4])
        segment = data[position : position + 2 + length]
        position += 2 + length
        if marker in _SEQUENTIAL:
            frame, size_at = segment[4:], sum(map(len, kept)) + 5
        elif marker == _RESTART_INTERVAL:
            interval = int.from_bytes(segment[4:6])
        if marker in (*_SEQUENTIAL, *_TABLES, _RESTART_INTERVAL, _START_OF_SCAN):
            kept.append(segment)
        if marker == _START_OF_SCAN:
            break
    else:
        return None
    if len(frame) < 6 or len(frame) != 6 + 3 * frame[5] or segment[4] != frame[5]:
        return None  # progressive, or one scan for each colour
    factors = [(byte >> 4, byte & 15) for byte in frame[7::3]] if frame[5] > 1 else [(1, 1)]
    return _Layout(
        head=b"".join(kept),
        size_at=size_at,
        width=int.from_bytes(frame[3:5]),
        height=int.from_bytes(frame[1:3]),
        unit_width=_BLOCK * max(across for across, _ in factors),
        unit_height=_BLOCK * max(down for _, down in factors),
        interval=interval,
        scan=position,
    )
