"""Reads a JPEG's header: stored size, number of channels and EXIF orientation."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from reinception.data.images.decode import EXIF_ORIENTATION, strict_quiet_pillow

_BASELINE_TO_PROGRESSIVE = (0xC0, 0xC1, 0xC2)
_START_OF_SCAN, _APP1, _APP14 = 0xDA, 0xE1, 0xEE


@dataclass(frozen=True, kw_only=True)
class JpegHeader:
    """Width and height as stored, before the image is turned by its EXIF `orientation` (1 to 8)."""

    width: int
    height: int
    num_channels: int
    orientation: int

    def scaled_size(self, scale_denominator: int) -> tuple[int, int]:
        """Stored width and height when each side is divided by the denominator and rounded up."""
        return -(-self.width // scale_denominator), -(-self.height // scale_denominator)


def read_header(data: bytes) -> JpegHeader | None:
    """None unless this is a JPEG of 8 bits, grey or in JFIF's colours, sequential or progressive."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    position, frame, exif = 2, b"", b""
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4])
        body = data[position + 4 : end]
        if marker == _START_OF_SCAN:
            break
        is_frame = marker in _BASELINE_TO_PROGRESSIVE and len(body) >= 6
        if (
            (is_frame and (body[0] != 8 or body[5] not in (1, 3) or frame))
            or (0xC3 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC))  # lossless, hierarchical or arithmetic
            or (marker == _APP14 and body[:5] == b"Adobe")  # its colours may be RGB or CMYK
            or (marker == _APP1 and b"orientation" in body.lower())  # XMP; Pillow knows which of the two goes first
        ):
            return None
        if is_frame:
            frame = body
        elif marker == _APP1 and body[:6] == b"Exif\0\0":
            exif += body[6:] if exif else body  # several segments are one block, as for Pillow
        position = end
    else:  # no scan before the end
        return None
    if not frame:
        return None
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    orientation = _exif_orientation(exif) if exif else 1
    return JpegHeader(width=width, height=height, num_channels=frame[5], orientation=orientation)


def _exif_orientation(body: bytes) -> int:
    exif = Image.Exif()
    try:
        with strict_quiet_pillow():
            exif.load(body)
            found = exif.get(EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF data beside a sound image: it is taken as it is stored, as in `decode`
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1
