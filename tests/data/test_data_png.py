"""That training's way through libspng gives the reference's pixels, and leaves to the reference what is not plain."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from reinception.data.images import png
from reinception.data.images.decode import Pixels, decode
from reinception.data.images.png import open_png
from reinception.data.loading.read import pixels_of, training_image
from reinception.data.sources.records import Record
from reinception.errors import BadImage

pytest.importorskip("pyspng")


def example_image(mode: str, height: int = 37, width: int = 53) -> Image.Image:
    """Ramps and noise, so that the encoder uses every one of PNG's filters."""
    random = np.random.default_rng(height * width)
    rows, columns = np.mgrid[:height, :width]
    planes = [rows * 5 % 256, columns * 3 % 256, random.integers(0, 256, (height, width))]
    colour = Image.fromarray(np.stack(planes, axis=2).astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray((rows * 1700 + columns).astype(np.uint16))
    return colour.convert(mode)


def encoded(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def pixels_for_training(record: Record) -> Pixels:
    found = training_image(record)
    assert isinstance(found, np.ndarray)
    return found


def with_chunk(data: bytes, name: bytes, body: bytes) -> bytes:
    chunk = len(body).to_bytes(4) + name + body + zlib.crc32(name + body).to_bytes(4)
    return data[:33] + chunk + data[33:]


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (37, 53), (64, 64)])
@pytest.mark.parametrize("level", [0, 6])
def test_a_plain_png_has_the_pixels_of_the_reference(mode, size, level):
    data = encoded(example_image(mode, *size), compress_level=level)
    pixels = open_png(data)
    assert pixels is not None
    assert pixels.flags.writeable
    assert np.array_equal(pixels, decode(data, keep_grey=True))


@pytest.mark.parametrize(
    ("name", "body"),
    [
        (b"gAMA", (45455).to_bytes(4)),
        (b"sRGB", b"\0"),
        (b"pHYs", bytes(8) + b"\1"),
        (b"bKGD", bytes(6)),
        (b"sBIT", b"\5\5\5"),
    ],
)
def test_notes_about_the_colours_change_no_pixel(name, body):
    data = with_chunk(encoded(example_image("RGB")), name, body)
    pixels = open_png(data)
    assert pixels is not None
    assert np.array_equal(pixels, decode(data, keep_grey=True))


def not_plain() -> dict[str, bytes]:
    note = PngImagePlugin.PngInfo()
    note.add_text("XML:com.adobe.xmp", '<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>')
    turned = Image.Exif()
    turned[0x0112] = 6
    modes = {mode: encoded(example_image(mode)) for mode in ("1", "LA", "RGBA", "P", "I;16")}
    return modes | {
        "a transparent colour": encoded(example_image("RGB"), transparency=(0, 0, 7)),
        "an orientation": encoded(example_image("RGB"), exif=turned),
        "an orientation in text": encoded(example_image("RGB"), pnginfo=note),
        "several frames": encoded(
            example_image("RGB"), save_all=True, append_images=[example_image("RGB").rotate(180)]
        ),
        "a JPEG": b"\xff\xd8\xff\xe0" + bytes(40),
        "nothing": b"",
    }


@pytest.mark.parametrize("what", not_plain())
def test_what_is_not_plain_is_left_to_the_reference(what: str, tmp_path: Path):
    data = not_plain()[what]
    assert open_png(data) is None
    (path := tmp_path / "one.png").write_bytes(data)
    record = Record(path=path, name="one.png", target=0)
    if len(data) > 50:
        assert np.array_equal(pixels_for_training(record), pixels_of(record))
    else:
        with pytest.raises(BadImage):
            training_image(record)


@given(st.data())
def test_damage_is_refused_as_the_reference_refuses_it(draw):
    data = bytearray(encoded(example_image("RGB")))
    if draw.draw(st.booleans(), label="cut"):
        del data[draw.draw(st.integers(33, len(data) - 1)) :]
    else:
        data[draw.draw(st.integers(33, len(data) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    try:
        expected = decode(bytes(data), keep_grey=True)
    except BadImage as refused:
        try:
            assert open_png(bytes(data)) is None
        except BadImage as ours:
            assert ours.kind == refused.kind
        return
    found = open_png(bytes(data))
    assert found is None or np.array_equal(found, expected)


def test_with_or_without_pyspng_the_bits_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    example_image("RGB").save(tmp_path / "one.png")
    record = Record(path=tmp_path / "one.png", name="one.png", target=0)
    fast = pixels_for_training(record)
    monkeypatch.setattr(png, "pyspng", None)
    assert np.array_equal(fast, pixels_for_training(record))
