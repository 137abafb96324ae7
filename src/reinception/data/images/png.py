"""PNG decoding for training: plain files through libspng, which uses the processor's vector instructions."""

from __future__ import annotations

import struct
from types import ModuleType

from reinception.data.images.decode import MAX_PIXELS, Pixels, png_chunks

try:
    import pyspng
except ImportError:  # the extra `fast` is not installed: Pillow decodes the same pixels, more slowly
    pyspng: ModuleType | None = None  # type: ignore[no-redef]

_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_FORMATS = {0: "L", 2: "RGB"}  # by the header's colour type
# These chunks change no pixel. Others may: text can hold an orientation, the rest is transparency or animation.
_PLAIN = frozenset(
    (b"IHDR", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"pHYs", b"tIME", b"bKGD", b"hIST")
)


def open_png(data: bytes) -> Pixels | None:
    """A PNG's pixels, (h, w, 3) or (h, w), where it is 8 bits of grey or colour and nothing else; otherwise None.

    None is left to `decode`, also where libspng is not sure. `BadImage` as by `decode` where the file is damaged.
    """
    if pyspng is None or data[:16] != _START or len(data) < 26:
        return None
    width, height, depth, colours = struct.unpack(">IIBB", data[16:26])
    if depth != 8 or colours not in _FORMATS or not 0 < width * height <= MAX_PIXELS or not png_chunks(data) <= _PLAIN:
        return None
    try:
        return pyspng.load(data, _FORMATS[colours])
    except RuntimeError:
        return None
