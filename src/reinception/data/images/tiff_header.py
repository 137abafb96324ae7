"""Reads what the first directory of a TIFF says of its samples, to name what Pillow has no mode for."""

from __future__ import annotations

import struct

_SIZES = {1: (1, "B"), 3: (2, "H"), 4: (4, "I")}
SAMPLES = 277
_BITS, _OFFSETS, _COUNTS, _FORMAT = 258, 273, 279, 339
_FORMATS = {2: " signed", 3: " floating-point"}


def tiff_samples(data: bytes) -> str | None:
    """A TIFF's bands and their depth in words ("13 bands of 16 bits"); None for a damaged or truncated one."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (num,) = struct.unpack_from(f"{order}H", data, start)
        tags = dict[int, tuple[int, ...]]()
        for place in range(start + 2, start + 2 + 12 * num, 12):
            tag, kind, count = struct.unpack_from(f"{order}HHI", data, place)
            if kind in _SIZES and count * _SIZES[kind][0] <= len(data):
                size, letter = _SIZES[kind]
                at = place + 8 if size * count <= 4 else struct.unpack_from(f"{order}I", data, place + 8)[0]
                tags[tag] = struct.unpack_from(f"{order}{count}{letter}", data, at)
        ends = [offset + size for offset, size in zip(tags[_OFFSETS], tags[_COUNTS], strict=True)]
    except (struct.error, KeyError, ValueError):
        return None
    if max(ends, default=0) > len(data):
        return None
    bits, samples = tags.get(_BITS, (1,)), tags.get(SAMPLES, (1,))[0]
    kind = _FORMATS.get(tags.get(_FORMAT, (1,))[0], "")
    depth = " and ".join(str(number) for number in sorted(set(bits)))
    return f"{samples} band{'s' if samples != 1 else ''} of {depth}{kind} bits"
