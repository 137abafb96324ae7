"""What comes through the door for images, and what is turned away with which reason."""

from __future__ import annotations

import io
import os
import pickle
import struct
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image, ImageFile

from reinception.data.images.decode import MAX_PIXELS, decode
from reinception.errors import BadImage

WHITE = [255, 255, 255]


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def photograph(height: int = 60, width: int = 80) -> Image.Image:
    """Smooth colours with some texture: every codec keeps it nearly, and orientation shows."""
    y, x = np.mgrid[0:height, 0:width]
    texture = np.random.default_rng(7).integers(0, 16, (height, width))
    channels = [x * 240 // width, y * 240 // height, (x + y) * 240 // (height + width)]
    return Image.fromarray(np.stack([channel + texture for channel in channels], axis=-1).astype(np.uint8))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *before: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = b"".join(before) + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def refusal(source: str | Path | bytes, max_pixels: int = MAX_PIXELS) -> BadImage:
    with pytest.raises(BadImage) as caught:
        decode(source, max_pixels=max_pixels)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) > 10
    return caught.value


@pytest.mark.parametrize(
    ("form", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "tiff_deflate"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 12),
        ("JPEG", {"quality": 95}, 12),
        ("JPEG", {"quality": 95, "progressive": True}, 12),
    ],
)
def test_every_format_gives_its_image(form, options, tolerance):
    pixels = decode(encoded(photograph(), form, **options))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (60, 80, 3)
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - np.asarray(photograph())).max() <= tolerance * 4
    assert np.abs(pixels.astype(int) - np.asarray(photograph())).mean() <= tolerance / 3


def test_gif_gives_its_first_frame():
    frames = [Image.new("P", (5, 4), index) for index in (0, 1)]
    for frame in frames:
        frame.putpalette([10, 20, 30, 40, 50, 60])
    pixels = decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert pixels.tolist() == [[[10, 20, 30]] * 5] * 4


def test_a_multi_image_jpeg_gives_its_first_image():
    pixels = decode(encoded(photograph(), "MPO", save_all=True, append_images=[Image.new("RGB", (80, 60))]))
    assert np.abs(pixels.astype(int) - np.asarray(photograph())).mean() < 12


def test_the_content_decides_and_not_the_name(tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded(photograph(), "PNG"))
    assert np.array_equal(decode(path), np.asarray(photograph()))
    assert np.array_equal(decode(str(path)), np.asarray(photograph()))


def test_bytes_after_the_end_of_an_image_do_no_harm():
    for form in ("JPEG", "PNG", "GIF", "BMP"):
        whole = encoded(photograph(), form)
        assert np.array_equal(decode(whole + b"padding" * 9), decode(whole))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_all_eight_exif_orientations_give_one_image(form):
    upright = np.asarray(photograph())
    turned = upright.transpose(1, 0, 2)
    as_stored = [  # by the standard's table: which side of the image row 0 and column 0 of the file are
        upright,  # top, left
        upright[:, ::-1],  # top, right
        upright[::-1, ::-1],  # bottom, right
        upright[::-1],  # bottom, left
        turned,  # left, top
        turned[::-1],  # right, top
        turned[::-1, ::-1],  # right, bottom
        turned[:, ::-1],  # left, bottom
    ]
    for orientation, stored in enumerate(as_stored, start=1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"lossless": True} if form == "WEBP" else {"quality": 98, "subsampling": 0} if form == "JPEG" else {}
        pixels = decode(encoded(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif, **options))
        assert pixels.shape == (60, 80, 3), orientation
        assert np.abs(pixels.astype(int) - upright).mean() < 2, orientation


def test_a_damaged_exif_block_leaves_the_image_as_it_is_stored():
    whole = encoded(photograph(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage")
    assert decode(whole).shape == (60, 80, 3)


def test_sixteen_bit_grey_keeps_its_levels():
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    files = [
        encoded(Image.fromarray(ramp), "PNG"),
        encoded(Image.fromarray(ramp), "TIFF"),
        encoded(Image.fromarray(ramp.astype(">u2")), "TIFF"),
        encoded(Image.fromarray(ramp), "TIFF", compression="tiff_lzw"),
        encoded(Image.fromarray(ramp.astype(np.int32)), "TIFF"),
    ]
    for file in files:
        pixels = decode(file)
        assert np.array_equal(pixels[:, :, 0], np.arange(256).reshape(16, 16))
        assert np.array_equal(pixels[:, :, 0], pixels[:, :, 2])


def test_a_tiff_whose_zero_is_white_is_not_shown_as_a_negative():
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    pixels = decode(encoded(Image.fromarray(ramp), "TIFF", tiffinfo={262: 0}))
    assert np.array_equal(pixels[:, :, 0], 255 - np.arange(256).reshape(16, 16))


def test_twelve_bit_grey_is_scaled_by_its_own_range():
    values = [0, 4095, 2048, 1024]
    packed = bytes.fromhex("".join(f"{value:03x}" for value in values))
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 1), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag == 273 else 3, 1, value) for tag, value in tags)
    file = b"II*\x00" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    pixels = decode(file + packed)
    assert len(file) == 122
    assert pixels[0, :, 0].tolist() == [0, 255, 128, 64]


def test_greys_whose_white_is_not_defined_are_refused():
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    for values in (ramp, ramp.astype(np.int32) - 5, (ramp * 1e9).astype(np.int32)):
        error = refusal(encoded(Image.fromarray(values), "TIFF"))
        assert error.kind == "values"
        assert "16 bits" in error.reason


def test_transparency_is_flattened_on_white():
    rgba = Image.new("RGBA", (3, 1))
    rgba.putdata([(255, 0, 0, 0), (0, 0, 255, 255), (0, 0, 0, 128)])
    for form, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        assert decode(encoded(rgba, form, **options)).tolist() == [[WHITE, [0, 0, 255], [127, 127, 127]]]
    grey = Image.new("LA", (2, 1))
    grey.putdata([(0, 0), (9, 255)])
    assert decode(encoded(grey, "PNG")).tolist() == [[WHITE, [9, 9, 9]]]


def test_a_palette_with_transparency_is_flattened_on_white():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    assert decode(encoded(image, "PNG")).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    for form, transparency in (("PNG", b"\x00"), ("PNG", 0), ("GIF", 0)):
        pixels = decode(encoded(image, form, transparency=transparency))
        assert pixels.tolist() == [[WHITE, [0, 255, 0], [0, 0, 255]]]


@pytest.mark.parametrize(
    ("depth", "colour", "row", "transparent", "expected"),
    [
        (1, 0, b"\x40", ">H1", [WHITE[:1] * 3, WHITE]),
        (2, 0, b"\x70", ">H1", [WHITE, WHITE]),
        (4, 0, b"\x18", ">H1", [WHITE, [136, 136, 136]]),
        (8, 0, b"\x01\x80", ">H1", [WHITE, [128, 128, 128]]),
        (16, 0, b"\x10\x00\x80\x00", ">H4096", [WHITE, [128, 128, 128]]),
        (8, 2, b"\x01\x02\x03\x09\x09\x09", ">HHH1,2,3", [WHITE, [9, 9, 9]]),
        (16, 2, b"\x01\x00\x02\x00\x03\x00\x09\x00\x09\x00\x09\x00", ">HHH256,512,768", [WHITE, [9, 9, 9]]),
    ],
)
def test_a_transparent_colour_becomes_white_at_every_depth(depth, colour, row, transparent, expected):
    layout = transparent.rstrip("0123456789,")
    values = [int(value) for value in transparent[len(layout) :].split(",")]
    pixels = decode(png(2, 1, depth, colour, b"\x00" + row, chunk(b"tRNS", struct.pack(layout, *values))))
    if depth == 1:
        expected = [[0, 0, 0], WHITE]
    assert pixels[0].tolist() == expected


def test_cmyk_is_converted():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for form in ("JPEG", "TIFF"):
        assert np.abs(decode(encoded(image, form)).astype(int) - [254, 0, 0]).max() <= 2


MODES = {
    "PNG": ["1", "L", "P", "RGB", "RGBA", "LA"],
    "TIFF": ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB"],
    "JPEG": ["1", "L", "RGB", "CMYK", "YCbCr"],
    "WEBP": ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB"],
    "BMP": ["1", "L", "P", "RGB", "RGBA"],
    "GIF": ["1", "L", "P", "RGB", "RGBA", "LA"],
}


@pytest.mark.parametrize(("form", "mode"), [(form, mode) for form, modes in MODES.items() for mode in modes])
def test_every_mode_a_format_can_hold_comes_out_as_rgb(form, mode):
    if (form, mode) == ("TIFF", "YCbCr") and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("before version 13 Pillow does not read back such a file that it wrote")
    image = Image.new("RGB", (9, 7), (200, 100, 50))
    image = image.convert("L").convert("LA") if mode == "LA" else image.convert(mode)
    assert decode(encoded(image, form)).shape == (7, 9, 3)


def test_grey_can_be_kept_as_one_channel_with_the_same_numbers():
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    for image in (Image.fromarray(ramp), Image.fromarray((ramp >> 8).astype(np.uint8))):
        file = encoded(image, "PNG")
        assert decode(file, keep_grey=True).shape == (16, 16)
        assert np.array_equal(decode(file, keep_grey=True)[:, :, None].repeat(3, axis=2), decode(file))
    assert decode(encoded(photograph(), "PNG"), keep_grey=True).shape == (60, 80, 3)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_truncated_file_is_refused_wherever_it_is_cut(form):
    whole = encoded(photograph(), form)
    for kept in (0.02, 0.2, 0.5, 0.9, 0.99):
        error = refusal(whole[: int(len(whole) * kept)])
        assert error.kind in ("truncated", "corrupt", "not_an_image"), kept
        if kept >= 0.5:
            assert error.kind == "truncated", kept


@pytest.mark.parametrize(
    ("form", "missing"), [("JPEG", 2), ("PNG", 1), ("PNG", 12), ("WEBP", 1), ("BMP", 1), ("GIF", 9)]
)
def test_a_file_that_lacks_its_last_bytes_is_refused_as_truncated(form, missing):
    assert refusal(encoded(photograph(), form)[:-missing]).kind == "truncated"


def test_a_truncated_file_is_refused_even_where_the_program_told_pillow_to_accept_it(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole = encoded(photograph(), "JPEG")
    assert refusal(whole[: len(whole) // 2]).kind == "truncated"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_a_truncated_jpeg_is_refused_with_its_name(tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(encoded(photograph(), "JPEG")[:600])
    error = refusal(path)
    assert str(error).startswith(f"{path}: is truncated")
    assert error.name == str(path)
    assert str(error.named("cats/cut.jpg")).startswith("cats/cut.jpg: is truncated")


def test_a_png_whose_data_fail_their_checksum_is_refused():
    file = bytearray(encoded(photograph(), "PNG"))
    file[200] ^= 1
    assert refusal(bytes(file)).kind == "corrupt"


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        (b"", "empty", "0 bytes"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not_an_image", "a web page"),
        (b'{"error": "not found"}', "not_an_image", "a web page or other text"),
        (b"hello, world", "not_an_image", "68 65 6c"),
        (b"\x00" * 900, "not_an_image", "00 00"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "format", "an SVG drawing"),
        (b"\x00\x00\x00\x1cftypheic" + b"\x00" * 99, "format", "a HEIC image"),
        (b"\x00\x00\x00\x1cftypavif" + b"\x00" * 99, "format", "an AVIF image"),
        (b"\x00" * 128 + b"DICM" + b"\x00" * 99, "format", "a DICOM file"),
        (b"8BPS\x00\x01", "format", "a Photoshop document"),
        (b"%PDF-1.7", "format", "a PDF document"),
        (b"version https://git-lfs.github.com/spec/v1\n", "format", "a Git LFS pointer"),
        (b"\xff\xd8\xff", "corrupt", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "truncated", "truncated"),
        (b"GIF89a", "corrupt", "damaged"),
        (b"BM" + b"\x00" * 60, "corrupt", "damaged"),
        (b"II*\x00" + b"\xff" * 60, "corrupt", "damaged"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 " + b"\xff" * 60, "corrupt", "damaged"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "format", "a sound"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, content, kind, says):
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    error = refusal(path)
    assert error.kind == kind
    assert says in error.reason


def test_a_png_of_30000_by_30000_is_refused_at_once():
    start = time.perf_counter()
    error = refusal(png(30_000, 30_000, 1, 0, bytes(3751 * 300)))
    assert error.kind == "too_large"
    assert "100 million" in error.reason
    assert time.perf_counter() - start < 0.5


def test_the_pixel_cap_is_ours_and_is_read_from_the_header():
    assert refusal(png(10_001, 10_000, 8, 0, b"")).kind == "too_large"
    assert refusal(encoded(photograph(), "JPEG"), max_pixels=4799).reason.startswith("is too large (80 x 60 pixels")
    assert decode(encoded(photograph(), "JPEG"), max_pixels=4800).shape == (60, 80, 3)


def test_a_text_bomb_in_a_png_is_refused():
    bomb = chunk(b"zTXt", b"k\x00\x00" + zlib.compress(b"\x00" * (80 << 20), 1))
    assert refusal(png(2, 1, 8, 0, b"\x00\x01\x02", bomb)).kind == "corrupt"


def test_what_can_not_be_read_is_named(tmp_path):
    assert refusal(tmp_path / "absent.png").kind == "missing"
    assert refusal(tmp_path).kind == "unreadable"
    assert refusal("a\x00b.png").kind == "unreadable"
    os.mkfifo(tmp_path / "pipe.png")
    assert refusal(tmp_path / "pipe.png").kind == "unreadable"
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert refusal(tmp_path / "loop.png").kind == "unreadable"
    with (tmp_path / "huge.bmp").open("wb") as file:
        file.truncate(2 << 30)
    assert refusal(tmp_path / "huge.bmp").kind == "too_large"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_damage_anywhere_is_decoded_or_refused_and_nothing_else(form):
    whole = encoded(photograph(), form)
    rng = np.random.default_rng(3)
    refusals = []
    for _ in range(150):
        file = bytearray(whole)
        for position in rng.integers(0, min(len(file), 700), 3):
            file[position] = rng.integers(256)
        try:
            assert decode(bytes(file), max_pixels=10_000_000).dtype == np.uint8
        except BadImage as error:
            refusals.append(str(error))
    assert refusals
    assert not any("\n" in line for line in refusals)


def test_no_pillow_warning_leaks_and_the_filters_are_restored():
    before = list(warnings.filters)
    exif = Image.Exif()
    exif[0x0112] = 6
    large = png(9600, 9600, 1, 0, bytes(1201 * 9600))  # Pillow warns of a decompression bomb; our cap is higher
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert decode(large, keep_grey=True).shape == (9600, 9600)
        decode(encoded(photograph(), "JPEG", exif=exif.tobytes()[:-9] + b"\xff" * 30))
    assert [str(warning.message) for warning in caught] == []
    assert warnings.filters == before


def test_threads_decode_at_the_same_time_and_leave_the_filters_alone():
    before = list(warnings.filters)
    file, wrong = encoded(photograph(), "PNG"), []
    expected = decode(file)

    def work() -> None:
        wrong.extend(index for index in range(40) if not np.array_equal(decode(file), expected))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert warnings.filters == before


def test_a_refusal_survives_pickling_and_stays_on_one_line():
    error = pickle.loads(pickle.dumps(BadImage("odd\nname.png", "corrupt", "two\nlines")))
    assert (error.kind, error.reason, error.name) == ("corrupt", "two\\nlines", "odd\nname.png")
    assert str(error) == "odd\\nname.png: two\\nlines"
