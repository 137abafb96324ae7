"""That training's way through libjpeg-turbo gives the reference's pixels, smaller ones where that is enough."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from reinception.data.images import jpeg
from reinception.data.images.augment import augment
from reinception.data.images.crops import evaluation_pixels
from reinception.data.images.decode import Pixels, decode
from reinception.data.images.jpeg import SCALED_ABOVE_PIXELS, Jpeg, open_jpeg, scale_denominator_for
from reinception.data.images.jpeg_header import read_header
from reinception.data.images.resize import resize_to_square
from reinception.data.loading.read import evaluation_square, pixels_of, training_image
from reinception.data.sources.records import Record
from reinception.errors import BadImage
from reinception.preprocess import Preprocessing


def photograph(height: int, width: int, mode: str = "RGB") -> Image.Image:
    """Soft structure of several sizes, as in a photograph; nothing in it is symmetric."""
    random = np.random.default_rng(5)
    pixels = np.zeros((height, width, 3), dtype=np.float32)
    for scale in (32, 64, 128):
        noise = random.normal(128, 60, (height // scale + 2, width // scale + 2, 3)).clip(0, 255).astype(np.uint8)
        pixels += np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray((pixels / 3).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, orientation: int = 1, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88, exif=exif, **options)
    return file.getvalue()


LARGE = (1203, 1001)  # height and width that no scale divides
EVEN = (1208, 1000)


@pytest.fixture(params=["simplejpeg", "Pillow"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "Pillow":
        monkeypatch.setattr(jpeg, "simplejpeg", None)
    else:
        pytest.importorskip("simplejpeg")
    return request.param


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_a_small_jpeg_has_the_pixels_of_the_reference(mode, options):
    pytest.importorskip("simplejpeg")
    for orientation in range(1, 9):
        data = encoded(photograph(61, 83, mode), orientation, **options)
        image = open_jpeg(data)
        assert image is not None
        assert np.array_equal(image.pixels(1), decode(data, keep_grey=True))


@pytest.mark.parametrize(("orientation", "size"), [*((turn, EVEN) for turn in range(1, 9)), (1, LARGE), (7, LARGE)])
def test_a_large_jpeg_is_smaller_upright_and_the_same_image(orientation, size, decoder):
    data = encoded(photograph(*size), orientation)
    whole = decode(data)
    image = open_jpeg(data)
    assert isinstance(image, Jpeg)
    assert (image.height, image.width) == whole.shape[:2]
    assert np.array_equal(image.pixels(1), whole)
    for scale in (2, 4, 8):
        pixels = image.pixels(scale)
        width, height = -(-whole.shape[1] // scale), -(-whole.shape[0] // scale)
        assert pixels.shape == (height, width, 3)
        by_area = np.asarray(Image.fromarray(whole).resize((width, height), Image.Resampling.BOX))
        assert np.corrcoef(pixels.ravel(), by_area.ravel())[0, 1] > (0.99 if size == EVEN else 0.95)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_with_or_without_simplejpeg_the_bits_are_the_same(mode, options, monkeypatch):
    pytest.importorskip("simplejpeg")
    image = open_jpeg(encoded(photograph(*LARGE, mode), 6, **options))
    assert isinstance(image, Jpeg)
    fast = {scale: image.pixels(scale) for scale in (1, 2, 4, 8)}
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    for scale, pixels in fast.items():
        assert np.array_equal(image.pixels(scale), pixels), scale


def test_what_is_not_ordinary_is_left_to_the_reference():
    file = io.BytesIO()
    photograph(60, 80).convert("CMYK").save(file, "JPEG")
    png = io.BytesIO()
    photograph(60, 80).save(png, "PNG")
    for data in (file.getvalue(), png.getvalue(), b"", b"\xff\xd8\xff", encoded(photograph(60, 80))[:300]):
        assert open_jpeg(data) is None


def test_a_truncated_one_is_refused_at_every_scale():
    whole = encoded(photograph(60, 80))
    image = open_jpeg(whole[: len(whole) * 2 // 3])
    assert image is not None
    for scale_denominator in (1, 2, 4, 8):
        with pytest.raises(BadImage, match="truncated"):
            image.pixels(scale_denominator)


def test_the_header_is_read_where_fill_bytes_and_damaged_notes_stand_in_the_way():
    data = encoded(photograph(60, 80))
    found = read_header(data)
    assert found is not None
    assert (found.width, found.height, found.num_channels, found.orientation) == (80, 60, 3, 1)
    assert read_header(data[:2] + b"\xff\xff\xff" + data[2:]) == found
    notes = b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage"
    damaged = data[:2] + b"\xff\xe1" + (len(notes) + 2).to_bytes(2) + notes + data[2:]
    assert read_header(damaged) == found


def test_damage_anywhere_gives_an_image_or_a_refusal_by_name(tmp_path, decoder):
    path = tmp_path / "x.jpg"
    record = Record(path=path, name="cats/x.jpg", target=0)
    random = np.random.default_rng(3)
    outcomes = set()
    for size in (LARGE, (60, 80)):
        whole = encoded(photograph(*size), 6)
        for _ in range(25):
            data = bytearray(whole)
            for place in random.integers(0, min(len(data), 900), 3):
                data[place] = random.integers(256)
            path.write_bytes(data[: random.integers(len(data) // 2, 2 * len(data))])
            try:
                image = training_image(record)
                pixels = image if isinstance(image, np.ndarray) else image.pixels(4)
                assert pixels.dtype == np.uint8
                outcomes.add("image")
            except BadImage as refused:
                assert str(refused).startswith("cats/x.jpg: ") or not refused.name
                outcomes.add("refused")
    assert outcomes == {"image", "refused"}


def test_an_image_is_shrunk_no_further_than_its_crop_allows():
    assert [scale_denominator_for(side, 9999, 299) for side in (298, 299, 597, 598, 1195, 1196, 2391, 2392, 9999)] == [
        *(1, 1, 1, 2, 2, 4, 4, 8, 8)
    ]


@pytest.mark.parametrize("kind", ["inception", "crop", "gentle", "none"])
def test_a_distorted_large_jpeg_looks_like_the_one_decoded_whole(kind):
    data = encoded(photograph(*EVEN), 8)
    image, whole = open_jpeg(data), decode(data)
    assert isinstance(image, Jpeg)
    for index in range(6):
        options = {"input_size": 75, "seed": 1, "epoch": 2, "index": index}
        pixels, reference = augment(image, kind=kind, **options), augment(whole, kind=kind, **options)
        assert pixels.shape == (75, 75, 3)
        assert np.corrcoef(pixels.ravel(), reference.ravel())[0, 1] > 0.97


def test_what_evaluation_sees_is_never_scaled(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded(photograph(*LARGE)))
    assert LARGE[0] * LARGE[1] > SCALED_ABOVE_PIXELS
    pixels = pixels_of(Record(path=path, name="x.jpg", target=0))
    assert np.array_equal(pixels, np.asarray(Image.open(path)))


@pytest.mark.parametrize("resize", ["whole", "shorter_side", "central_crop"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_evaluation_sees_the_same_bits_by_either_decoder(mode, resize, tmp_path):
    pytest.importorskip("simplejpeg")
    path, preprocessing = tmp_path / "x.jpg", Preprocessing(input_size=75, resize=resize)
    record = Record(path=path, name="x.jpg", target=0)
    for size, orientation, options in (
        ((61, 83), 1, {}),
        (LARGE, 1, {"subsampling": 0}),
        ((90, 200), 6, {"progressive": True}),
        ((3, 400), 1, {}),
    ):
        path.write_bytes(encoded(photograph(*size, mode), orientation, **options))
        square = evaluation_square(record, preprocessing)
        assert square.tobytes() == evaluation_pixels(pixels_of(record), preprocessing).tobytes()
        assert square.shape == (75, 75, 3) and square.flags.c_contiguous


def test_a_damaged_jpeg_is_the_same_to_evaluation_by_either_decoder(tmp_path):
    pytest.importorskip("simplejpeg")
    path, preprocessing = tmp_path / "x.jpg", Preprocessing(input_size=75)
    record, whole = Record(path=path, name="x.jpg", target=0), encoded(photograph(60, 80))
    random = np.random.default_rng(3)

    def seen(read):
        try:
            return read().tobytes()
        except BadImage as error:
            return str(error)

    refused = 0
    for _ in range(300):
        data = bytearray(whole[: random.integers(len(whole) // 2, len(whole) + 1)])
        for place in random.integers(0, len(data), random.integers(0, 4)):
            data[place] = random.integers(0, 256)
        path.write_bytes(data)
        found = seen(lambda: evaluation_square(record, preprocessing))
        assert found == seen(lambda: evaluation_pixels(pixels_of(record), preprocessing))
        refused += isinstance(found, str)
    assert 0 < refused < 300


def noise(height: int, width: int, *channels: int) -> Pixels:
    return np.random.default_rng(height + width).integers(0, 256, (height, width, *channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_the_fast_resize_is_pillows_within_one_level(channels):
    for height, width, size in [(1, 1, 9), (375, 500, 299), (33, 172, 292), (800, 90, 75), (299, 299, 299), (2, 3, 1)]:
        image = noise(height + 3, width + 4, *channels)[2 : 2 + height, 1 : 1 + width]
        expected = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
        assert np.abs(resize_to_square(image, size, "bilinear").astype(int) - np.asarray(expected)).max() <= 1
