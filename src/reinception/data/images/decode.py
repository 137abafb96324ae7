"""Decodes image files to uint8 RGB or grey pixels; whatever cannot be decoded is a `BadImage`."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import stat
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (  # the plugins are named so that Pillow never has to load all the others to find one of them
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    ImageFile,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TgaImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from reinception.data.images.formats import FORMATS, HEAD_BYTES, TEXT, identify
from reinception.data.images.tiff_header import tiff_samples
from reinception.errors import BadImage
from reinception.preprocess import Preprocessing

Pixels = NDArray[np.uint8]
AS_DECLARED = Preprocessing()  # of which only the background and the range of deep greys matter here

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it says to stderr is in our errors

MAX_PIXELS = 100_000_000

# No accepted image needs more bytes than 16-bit RGBA and some room for metadata.
_BYTES_PER_PIXEL = 8
_ROOM_BYTES = 64 << 20
_SHRINK = "shrink it; data pack --shorter-side does that for JPEG"
_DAMAGED = "is damaged ({}): get a fresh copy, or remove it"
_TRUNCATED = "is truncated ({}): get a fresh copy, or remove it"
_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
EXIF_ORIENTATION, _TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 0x0112, 258, 262, 0


def decode(
    source: str | Path | bytes | Image.Image,
    *,
    max_pixels: int = MAX_PIXELS,
    keep_grey: bool = False,
    at_least: int | None = None,
    preprocessing: Preprocessing = AS_DECLARED,
) -> Pixels:
    """One image as uint8 pixels (height, width, 3): a fresh, writable array in the order red, green, blue.

    The content decides, not the file's name: JPEG, PNG, WebP, BMP, GIF, TIFF, PPM (PGM, PBM) and TGA, of several
    frames the first. EXIF orientation is applied. Greys deeper than 8 bits are scaled by the range their storage
    declares (16 bits: v / 257, rounded), never stretched and never clipped, unless `preprocessing` has a `deep_range`;
    of deep colours the upper 8 bits are taken. Transparency is flattened on its `background`, which is white. CMYK is
    converted by formula; colour profiles are not applied. With `keep_grey` an image stored in grey comes back as
    (height, width), a third of the memory; the same numbers. A Pillow image is treated as the file would be that it was
    opened from. A JPEG with more than `max_pixels` is decoded at a half, a quarter or an eighth of its size where its
    shorter side keeps `at_least` pixels and the result is small enough.

    Raises `BadImage` for everything else: at most `max_pixels` are decoded, and a truncated or
    damaged file is refused, not filled up. Safe to call from threads; never warns.
    """
    name, data = os.fspath(source) if isinstance(source, str | Path) else "", b""
    try:
        if isinstance(source, Image.Image):
            with strict_quiet_pillow():
                return _loaded_pixels(source, b"", max_pixels, keep_grey, preprocessing)
        data = source if isinstance(source, bytes) else allowed_bytes(Path(source), max_pixels)
        found = _require_format(data)
        if found == "PNG":
            png_chunks(data)
        if found == "WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data):
            raise BadImage("", "truncated", _TRUNCATED.format("the WebP is shorter than it says"))
        with strict_quiet_pillow(), Image.open(io.BytesIO(data), formats=(found,)) as image:
            if at_least is not None and image.width * image.height > max_pixels:
                _draft(image, max_pixels, at_least)
            return _loaded_pixels(image, data, max_pixels, keep_grey, preprocessing)
    except BadImage as refused:
        raise refused.named(name) from refused.__cause__
    except MemoryError as error:
        raise BadImage(name, "memory", "not enough memory to decode it: free some, or shrink the image") from error
    except Exception as error:  # Pillow's plugins can raise anything on a damaged file
        kind, reason = _classify(error, data)
        raise BadImage(name, kind, reason) from error


def max_file_bytes(max_pixels: int) -> int:
    """The size in bytes of the largest file that is read when an image may have `max_pixels`."""
    return _BYTES_PER_PIXEL * max_pixels + _ROOM_BYTES


def allowed_bytes(path: Path, max_pixels: int) -> bytes:
    """A file's content. `BadImage` when it is not there, not a file, or larger than `max_file_bytes`."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("", "unreadable", "is not a regular file: give an image")
        if status.st_size > (limit := max_file_bytes(max_pixels)):
            raise BadImage("", "too_large", f"{status.st_size:,} bytes are more than the {limit:,} allowed: shrink it")
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except FileNotFoundError as error:
        raise BadImage("", "missing", "there is no such file: check the path") from error
    except (OSError, ValueError) as error:
        message = getattr(error, "strerror", None) or str(error)
        raise BadImage("", "unreadable", f"cannot be read ({message}): check the path and the permissions") from error


def _require_format(data: bytes) -> str:
    if not data:
        raise BadImage("", "empty", "is empty (0 bytes): get a fresh copy, or remove it")
    what = identify(data[:HEAD_BYTES])
    if what is None or what == TEXT:
        found = f"it is {what}" if what else f"it begins with the bytes {data[:8].hex(' ')}"
        raise BadImage("", "not_an_image", f"is not an image ({found}): replace or remove it")
    if what not in FORMATS:
        raise BadImage("", "format", f"is {what}; {', '.join(FORMATS)} are read: convert it")
    return what


def png_chunks(data: bytes) -> set[bytes]:
    """The names of a PNG's chunks. `BadImage` where a critical one fails its checksum or the end is missing.

    Pillow would use the data all the same.
    """
    view, position, names = memoryview(data), 8, set[bytes]()
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(view[position : position + 4])
        if end > len(data):
            break
        name = bytes(view[position + 4 : position + 8])
        is_critical = not name[0] & 0x20
        if is_critical and zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise BadImage("", "corrupt", _DAMAGED.format("a PNG checksum does not match"))
        names.add(name)
        if name == b"IEND":
            return names
        position = end
    raise BadImage("", "truncated", _TRUNCATED.format("the PNG ends before its end mark"))


def _loaded_pixels(
    image: Image.Image, data: bytes, max_pixels: int, keep_grey: bool, preprocessing: Preprocessing
) -> Pixels:
    """The pixels of an opened image, whose encoded `data` may be unknown (empty)."""
    width, height = image.size
    if width * height > max_pixels:
        sides = f"{width:,} x {height:,} pixels are more than the {max_pixels / 1e6:,.0f} million allowed"
        raise BadImage("", "too_large", f"is too large ({sides}): {_SHRINK}")
    image.load()
    orientation = orientation_of(image)
    transparent = None if image.mode == "P" else _transparent_colour(image, data)
    if image.mode in _GREY_16 or image.mode in ("I", "F"):
        pixels, is_clear = _deep_grey(image, transparent, preprocessing.deep_range)
    else:
        pixels = np.array(_flatten(image, preprocessing.background))
        is_clear = None if transparent is None else _equals(pixels, transparent)
    if is_clear is not None:
        pixels = _on_background(pixels, is_clear, preprocessing.background)
    pixels = upright(pixels, orientation)
    if pixels.ndim == 2 and not keep_grey:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return pixels


def _draft(image: Image.Image, max_pixels: int, at_least: int) -> None:
    """Have a JPEG decoded no larger than is allowed, at the largest scale that is; other formats stay as they are."""
    for scale in (2, 4, 8):
        size = image.width // scale, image.height // scale
        if size[0] * size[1] <= max_pixels and min(size) >= at_least:
            image.draft(None, size)
            return


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """The stored pixels (h, w) or (h, w, 3) turned as EXIF's `orientation` says; unknown numbers change nothing."""
    turn = _TRANSPOSE.get(orientation)
    return pixels if turn is None else np.array(Image.fromarray(pixels).transpose(turn))


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where it is damaged or unknown: then the image is taken as it is stored."""
    with contextlib.suppress(Exception):
        found = int(image.getexif().get(EXIF_ORIENTATION, 1))
        return found if found in _TRANSPOSE else 1
    return 1


def _on_background(pixels: Pixels, is_clear: NDArray[np.bool_], background: tuple[int, int, int]) -> Pixels:
    """`pixels` with those that `is_clear` in the colour of the background, which makes a grey image one of colours."""
    if pixels.ndim == 2 and len(set(background)) > 1:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    pixels[is_clear] = background[0] if pixels.ndim == 2 else background
    return pixels


def _flatten(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """The image as grey ("L") or RGB, whatever its mode; what is transparent shows the background."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or (image.mode == "P" and "transparency" in image.info):
        coloured = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, background)
        canvas.paste(coloured, mask=coloured)
        return canvas
    return image.convert("RGB")


def _transparent_colour(image: Image.Image, data: bytes) -> tuple[int, ...] | None:
    """The one colour that is transparent, at the depth of the decoded pixels; None where there is none.

    Pillow reports the file's own number; where it scales the pixels (1, 2, 4 and 16 bits per channel) it leaves that
    number as it was.
    """
    colour: Any = image.info.get("transparency")
    if isinstance(colour, int):
        colour = (colour,)
    if not isinstance(colour, tuple):
        return None
    depth = data[24] if image.format == "PNG" and data else 8
    if image.mode == "RGB" and depth == 16:
        return tuple(value >> 8 for value in colour)
    if image.mode == "L" and depth < 8:
        return tuple(value * 255 // (2**depth - 1) for value in colour)
    return colour


def _equals(pixels: NDArray[Any], colour: tuple[int, ...]) -> NDArray[np.bool_]:
    return (pixels == colour[0]) if pixels.ndim == 2 else (pixels == np.array(colour)).all(axis=2)


def _deep_grey_range(image: Image.Image) -> tuple[int, bool]:
    """(largest value the storage declares, whether 0 is white) of a grey deeper than 8 bits."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_TIFF_BITS, (16,))[0]
    return 2 ** min(bits, 16) - 1, tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO


def _deep_grey(
    image: Image.Image, transparent: tuple[int, ...] | None, deep_range: tuple[int, int] | None
) -> tuple[Pixels, NDArray[np.bool_] | None]:
    """(pixels, which are transparent) of a grey deeper than 8 bits: `deep_range`, or else the range that the storage
    declares, becomes 0 to 255, rounded.

    Integers wider than 16 bits carry no convention for white. Those within 0 to 65535 are taken as 16-bit values, as
    most writers mean them; negative, larger and floating-point values are refused rather than guessed at.
    """
    values, (largest, is_inverted) = np.asarray(image), _deep_grey_range(image)
    if image.mode == "F" or values.min() < 0 or values.max() > largest:
        what = "floating-point" if image.mode == "F" else "negative or very large"
        raise BadImage("", "values", f"has {what} pixels, whose white is not defined: convert it to 8 or 16 bits")
    low, high = deep_range or (0, largest)
    used = np.clip(values, low, high).astype(np.uint32) - np.uint32(low)
    scaled = ((used * 255 + (high - low) // 2) // (high - low)).astype(np.uint8)
    is_clear = None if transparent is None else _equals(values, transparent)
    return (255 - scaled if is_inverted else scaled), is_clear


def _classify(error: Exception, data: bytes) -> tuple[str, str]:
    message = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        if identify(data[:HEAD_BYTES]) == "TIFF" and (samples := tiff_samples(data)):
            return "format", f"is whole, but has {samples}: convert it to grey or RGB of 8 bits"
        return "corrupt", _DAMAGED.format("its header cannot be read")
    if isinstance(error, EOFError) or "truncated" in message.lower():
        return "truncated", _TRUNCATED.format(message)
    return "corrupt", _DAMAGED.format(message)


_lock = Lock()
_num_users = 0
_before = contextlib.ExitStack()


@contextlib.contextmanager
def strict_quiet_pillow() -> Iterator[None]:
    """Pillow gives an image or raises: no warnings, and truncated files are not filled with grey.

    Warning filters and Pillow's switch belong to the process, so the first thread to enter sets them and the last one
    to leave restores them.
    """
    global _num_users  # noqa: PLW0603 - it mirrors state that is global in Pillow
    with _lock:
        if _num_users == 0:
            _before.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\.")
            # `_loaded_pixels` has a limit of its own, and names the size.
            _before.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
            Image.MAX_IMAGE_PIXELS = None
            _before.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        _num_users += 1
    try:
        yield
    finally:
        with _lock:
            _num_users -= 1
            if _num_users == 0:
                _before.close()
