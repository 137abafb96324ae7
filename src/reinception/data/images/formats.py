"""Identifies file formats from their first bytes, never from the file name."""

from __future__ import annotations

from pathlib import Path

SUFFIXES_OF = {
    "JPEG": frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"}),
    "PNG": frozenset({".png", ".apng"}),
    "WEBP": frozenset({".webp"}),
    "BMP": frozenset({".bmp", ".dib"}),
    "GIF": frozenset({".gif"}),
    "TIFF": frozenset({".tif", ".tiff"}),
    "PPM": frozenset({".ppm", ".pgm", ".pbm", ".pnm"}),
    "TGA": frozenset({".tga"}),
}
FORMATS = tuple(SUFFIXES_OF)
HEAD_BYTES = 512
TEXT = "a web page or other text"

# Files with these suffixes are meant as images: they are listed, so that one that cannot be read is refused by name and
# does not vanish. Any other file counts when its first bytes are those of an image that can be read.
IMAGE_SUFFIXES = frozenset().union(*SUFFIXES_OF.values()) | frozenset(
    {".heic", ".heif", ".avif", ".jp2", ".jxl", ".psd", ".ico", ".svg", ".dcm", ".exr", ".sgi", ".rgb", ".qoi"}
)

_TEXT_STARTS = (b"<!doctype", b"<html", b"<head", b"<?xml", b"{")
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    *((b"P%d" % kind + space, "PPM") for kind in range(1, 7) for space in (b"\n", b" ", b"\r", b"\t", b"#")),
    # What else is found in image folders, so that the error can say what it is.
    (b"8BPS", "a Photoshop document"),
    (b"\x01\xda", "an SGI image"),
    (b"qoif", "a QOI image"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript file"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"v/1\x01", "an OpenEXR image"),
    (b"SIMPLE  =", "a FITS image"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)


def identify(head: bytes) -> str | None:
    """The format of a file that begins with these bytes: one of FORMATS, a phrase for what is not read, or None."""
    return _by_signature(head) or ("TGA" if _is_tga(head) else None)


def _by_signature(head: bytes) -> str | None:
    if head[:4] == b"RIFF":
        return "WEBP" if head[8:12] == b"WEBP" else "a sound or video file"
    if head[4:8] == b"ftyp":
        return {b"avi": "an AVIF image", b"hei": "a HEIC image", b"mif": "a HEIC image"}.get(head[8:11], "a video")
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            return what
    if head[128:132] == b"DICM":
        return "a DICOM file"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return "an SVG drawing" if b"<svg" in text else TEXT if text.startswith(_TEXT_STARTS) else None


def _is_tga(head: bytes) -> bool:
    """TGA has no signature: the header's fields have to make sense together."""
    if len(head) < 18 or head[1] > 1 or head[2] not in (1, 2, 3, 9, 10, 11):
        return False
    has_map, width, height = head[2] in (1, 9), head[12:14], head[14:16]
    is_map_sound = head[7] in (15, 16, 24, 32) if has_map else head[1] == 0 and not any(head[3:8])
    return head[1] == has_map and is_map_sound and head[16] in (8, 16, 24, 32) and any(width) and any(height)


def looks_like_image(path: Path) -> bool:
    """Whether the first bytes are those of a format in FORMATS; False when the file cannot be read."""
    try:
        with path.open("rb") as file:
            return _by_signature(file.read(HEAD_BYTES)) in FORMATS  # without TGA, for any bytes may look like that
    except OSError:
        return False
