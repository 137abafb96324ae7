"""Image info: format, size, bit depth, colours and orientation of an encoded image, from its header."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

from PIL import Image

from reinception.data.images.decode import Pixels, orientation_of, strict_quiet_pillow
from reinception.data.images.formats import FORMATS, HEAD_BYTES, SUFFIXES_OF, identify
from reinception.data.images.tiff_header import SAMPLES

_REASONS = {
    "blank": "is of one colour for the network",
    "narrow_range": "fills few of the 256 levels of brightness that the network sees",
    "sixteen_bit": "has 16 bits per value; they are scaled to 8",
    "orientation": "is rotated or mirrored by its EXIF orientation; it is turned upright",
    "transparent": "has transparent parts; they are put on white",
    "cmyk": "is CMYK, for print; it is converted by formula",
    "palette": "has a palette of colours",
    "grey_among_colours": "is grey",
    "colour_among_greys": "is in colours",
    "several_frames": "has several frames; the first is used",
    "extra_bands": "has bands beside its colours and opacity; they are left out",
}
_HINTS = {
    "sixteen_bit": "; train --deep-range LOW,HIGH scales by the range that is used",
    "transparent": "; train --background R,G,B chooses another",
}

NARROW_LEVELS = 32
"""An image whose darkest and brightest values are nearer than that looks flat; solar cells have 55 and more."""
BLANK_DEVIATION = 1.0
"""An image whose values have a smaller standard deviation is of one colour."""
_SAMPLED_SIDE = 512


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Facts about one encoded image; `kinds` are keys of _REASONS; width and height are those of the upright image.

    `levels` are the darkest and the brightest value that the network gets, 0 to 255, and `stored` those in the file
    where it is deeper than 8 bits.
    """

    format: str
    width: int
    height: int
    kinds: tuple[str, ...]
    levels: tuple[int, int]
    stored: tuple[int, int] | None = None

    @property
    def expected_suffixes(self) -> frozenset[str]:
        """The file suffixes that fit the format."""
        return SUFFIXES_OF.get(self.format, frozenset())

    def reason(self, kind: str) -> str:
        used = "" if self.stored is None else f"; the file uses {self.stored[0]:,} to {self.stored[1]:,} of 65,535"
        if kind in ("blank", "narrow_range"):
            white = "; its transparent parts are put on white" if "transparent" in self.kinds else ""
            hint = _HINTS["sixteen_bit"] * (self.stored is not None) + _HINTS["transparent"] * bool(white)
            return f"{_REASONS[kind]} (levels {self.levels[0]} to {self.levels[1]} of 255{used}){white}{hint}"
        return _REASONS[kind] + (used + _HINTS[kind] if kind == "sixteen_bit" else "")


def image_info(data: bytes, pixels: Pixels) -> ImageInfo:
    """The facts about an encoded image that has been decoded to `pixels`, (h, w, 3) or (h, w)."""
    found = identify(data[:HEAD_BYTES]) or ""
    kinds, stored = ["grey_among_colours" if pixels.ndim == 2 else "colour_among_greys"], None
    levels = int(pixels.min()), int(pixels.max())
    step = max(1, max(pixels.shape[:2]) // _SAMPLED_SIDE)
    if levels[1] - levels[0] < NARROW_LEVELS or float(pixels[::step, ::step].std()) < BLANK_DEVIATION:
        is_blank = float(pixels.std()) < BLANK_DEVIATION
        kinds += ["blank"] if is_blank else ["narrow_range"] if levels[1] - levels[0] < NARROW_LEVELS else []
    with (
        contextlib.suppress(Exception),
        strict_quiet_pillow(),
        Image.open(io.BytesIO(data), formats=FORMATS) as image,
    ):
        is_deep = image.mode.startswith(("I", "F")) or (found == "PNG" and data[24] == 16)
        present = {
            "sixteen_bit": is_deep,
            "orientation": orientation_of(image) != 1,
            "transparent": image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info,
            "cmyk": image.mode == "CMYK",
            "palette": image.mode == "P",
            "several_frames": getattr(image, "n_frames", 1) > 1,
            "extra_bands": getattr(image, "tag_v2", {}).get(SAMPLES, 1) > len(image.getbands()),
        }
        if image.mode.startswith("I"):
            low, high = image.getextrema()
            stored = int(low), int(high)  # type: ignore[arg-type]
        kinds += [kind for kind, is_present in present.items() if is_present]
    height, width = pixels.shape[:2]
    return ImageInfo(format=found, width=width, height=height, kinds=tuple(kinds), levels=levels, stored=stored)
