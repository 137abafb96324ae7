"""What a JPEG says before its pixels: its size, how it is to be turned, and how its one scan is coded."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from reinception.data.images.decode import strict_quiet_pillow

_BASELINE_TO_PROGRESSIVE = (0xC0, 0xC1, 0xC2)
_HUFFMAN, _QUANTISATION, _START_OF_SCAN, _RESTART_INTERVAL = 0xC4, 0xDB, 0xDA, 0xDD
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
_ORIENTATION = 0x0112

ZIGZAG = tuple(sorted(range(64), key=lambda p: (p // 8 + p % 8, p // 8 if (p // 8 + p % 8) % 2 else p % 8)))
"""Where the coefficients that follow each other in a file lie in their block: the diagonals, to and fro."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The first scan of a JPEG, the only one if it is sequential, and what a decoder has to be told before it.

    `start` is where the codes begin in the file. `frame` and `order` are the segments SOF and SOS, `before` the others
    that pixels depend on; `tables` is what those of them hold that bring Huffman tables (DHT), `quantisers` the same
    for DQT. `interval` is the number of units between two restart marks, or 0.
    """

    start: int
    before: bytes
    frame: bytes
    order: bytes
    tables: bytes
    quantisers: bytes
    interval: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """The stored size, the number of channels, the orientation (1 to 8), and the first scan."""

    width: int
    height: int
    num_channels: int
    orientation: int
    scan: Scan


def read_header(data: bytes) -> Header | None:  # noqa: PLR0911, PLR0912 - each way out is one thing that is not for this room
    """None unless this is a JPEG of 8 bits in grey or in colours as JFIF means them, sequential or progressive."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    position, frame, orientation, interval = 2, b"", 1, 0
    before, tables, quantisers = b"", b"", b""
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4])
        segment = data[position:end]
        body = segment[4:]
        if marker == _START_OF_SCAN:
            if not frame:
                return None
            return Header(
                width=int.from_bytes(frame[7:9]),
                height=int.from_bytes(frame[5:7]),
                num_channels=frame[9],
                orientation=orientation,
                scan=Scan(
                    start=end,
                    before=before,
                    frame=frame,
                    order=segment,
                    tables=tables,
                    quantisers=quantisers,
                    interval=interval,
                ),
            )
        if marker in _BASELINE_TO_PROGRESSIVE and len(body) >= 6:
            if body[0] != 8 or body[5] not in (1, 3) or frame:
                return None
            frame = segment
        elif marker == _HUFFMAN:
            tables += body
            before += segment
        elif 0xC3 <= marker <= 0xCF and marker not in (0xC8, 0xCC):
            return None  # lossless, hierarchical or arithmetic
        elif marker == _QUANTISATION:
            quantisers += body
            before += segment
        elif marker == _APP0:
            before += segment
        elif marker == _RESTART_INTERVAL:
            interval = int.from_bytes(body[:2])
        elif marker == _APP14 and body[:5] == b"Adobe":
            return None  # it may mean RGB or CMYK
        elif marker == _APP1:
            if b"orientation" in body.lower():  # as XMP, in text: Pillow knows the order of precedence
                return None
            if body[:6] == b"Exif\0\0":
                orientation = _exif_orientation(body)
        position = end
    return None


def _exif_orientation(body: bytes) -> int:
    exif = Image.Exif()
    try:
        with strict_quiet_pillow():
            exif.load(body)
            found = exif.get(_ORIENTATION, 1)
    except Exception:  # damaged notes beside a whole picture: it is taken as it is stored, as in `decode`
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1
