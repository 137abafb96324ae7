"""Image info: format, size, bit depth, colours and orientation of an encoded image, from its header."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

from PIL import Image

from reinception.data.images.decode import EXIF_ORIENTATION, Pixels, strict_quiet_pillow
from reinception.data.images.formats import FORMATS, HEAD_BYTES, identify

_SUFFIXES = {
    "JPEG": frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"}),
    "PNG": frozenset({".png", ".apng"}),
    "WEBP": frozenset({".webp"}),
    "BMP": frozenset({".bmp", ".dib"}),
    "GIF": frozenset({".gif"}),
    "TIFF": frozenset({".tif", ".tiff"}),
}
_REASONS = {
    "sixteen_bit": "has 16 bits per value; they are scaled to 8",
    "orientation": "is rotated or mirrored by its EXIF orientation; it is turned upright",
    "transparent": "has transparent parts; they are put on white",
    "cmyk": "is CMYK, for print; it is converted by formula",
    "palette": "has a palette of colours",
    "grey_among_colours": "is grey",
    "colour_among_greys": "is in colours",
    "several_frames": "has several frames; the first is used",
}


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Facts about one encoded image; `kinds` are keys of _REASONS; width and height are those of the upright image."""

    format: str
    width: int
    height: int
    kinds: tuple[str, ...]

    @property
    def expected_suffixes(self) -> frozenset[str]:
        """The file suffixes that fit the format."""
        return _SUFFIXES.get(self.format, frozenset())

    def reason(self, kind: str) -> str:
        return _REASONS[kind]


def image_info(data: bytes, pixels: Pixels) -> ImageInfo:
    """The facts about an encoded image that has been decoded to `pixels`, (h, w, 3) or (h, w)."""
    found = identify(data[:HEAD_BYTES]) or ""
    kinds = ["grey_among_colours" if pixels.ndim == 2 else "colour_among_greys"]
    with (
        contextlib.suppress(Exception),
        strict_quiet_pillow(),
        Image.open(io.BytesIO(data), formats=FORMATS) as image,
    ):
        is_deep = image.mode.startswith(("I", "F")) or (found == "PNG" and data[24] == 16)
        present = {
            "sixteen_bit": is_deep,
            "orientation": image.getexif().get(EXIF_ORIENTATION, 1) not in (0, 1),
            "transparent": image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info,
            "cmyk": image.mode == "CMYK",
            "palette": image.mode == "P",
            "several_frames": getattr(image, "n_frames", 1) > 1,
        }
        kinds += [kind for kind, is_present in present.items() if is_present]
    return ImageInfo(format=found, width=pixels.shape[1], height=pixels.shape[0], kinds=tuple(kinds))
