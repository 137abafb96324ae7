"""That a part of a JPEG with restart markers has the pixels of the whole, and is decoded from a part of the file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reinception.data.decode import decode
from reinception.data.jpeg import UndecodedJpeg, open_jpeg
from reinception.data.restart import cut, restart_interval

pytest.importorskip("simplejpeg")

# With 4:2:0 a unit is 16 x 16 pixels: 300 x 200 pixels are 19 x 13 units, 38 x 25 without subsampling.
WIDTH, HEIGHT = 300, 200


def encoded(mode: str = "RGB", orientation: int = 1, **options: Any) -> bytes:
    random = np.random.default_rng(7)
    soft = Image.fromarray(random.integers(0, 256, (17, 25, 3), dtype=np.uint8))
    picture = soft.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85, exif=exif, **options)
    return file.getvalue()


def boxes(width: int, height: int) -> st.SearchStrategy[tuple[int, int, int, int]]:
    def sides(length: int) -> st.SearchStrategy[list[int]]:
        return st.lists(st.integers(0, length), min_size=2, max_size=2, unique=True).map(sorted)

    return st.tuples(sides(width), sides(height)).map(lambda both: (both[0][0], both[1][0], both[0][1], both[1][1]))


@settings(max_examples=150, deadline=None)
@given(
    st.data(),
    st.sampled_from(["RGB", "L"]),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([{"restart_marker_rows": 1}, {"restart_marker_rows": 3}, {"restart_marker_blocks": 1}]),
    st.integers(1, 8),
    st.sampled_from([1, 2, 4, 8]),
)
def test_any_part_has_the_pixels_of_the_whole(data, mode, subsampling, markers, orientation, shrink):
    file = encoded(mode, orientation, subsampling=subsampling, **markers)
    picture = open_jpeg(file)
    assert isinstance(picture, UndecodedJpeg)
    whole = picture.pixels(shrink)
    if shrink == 1:
        assert np.array_equal(whole, decode(file, keep_grey=True))
    height, width = whole.shape[:2]
    left, top, right, bottom = data.draw(boxes(width, height))
    part = picture.part(shrink, (left, top, right, bottom))
    assert np.array_equal(part, whole[top:bottom, left:right])


@pytest.mark.parametrize(("markers", "most"), [({"restart_marker_rows": 1}, 0.4), ({"restart_marker_blocks": 1}, 0.2)])
def test_what_lies_around_the_part_is_left_out_of_the_file(markers, most):
    file = encoded(**markers)
    found = cut(file, (120, 80, 180, 120))
    assert found is not None
    smaller, left, top = found
    assert len(smaller) - 623 < most * len(file)
    whole = decode(file)
    with Image.open(io.BytesIO(smaller)) as opened:
        opened.load()
        assert opened.height == 16 * 5
        assert np.array_equal(np.asarray(opened)[80 - top : 120 - top, 120 - left : 180 - left], whole[80:120, 120:180])


@pytest.mark.parametrize("options", [{}, {"progressive": True, "restart_marker_rows": 1}])
def test_without_markers_or_in_several_scans_there_is_nothing_to_cut(options):
    assert restart_interval(encoded(**options)) == 0
    assert cut(encoded(**options), (0, 0, 9, 9)) is None


def test_an_interval_that_does_not_fit_the_rows_is_decoded_whole():
    file = encoded(restart_marker_blocks=7)
    assert restart_interval(file) == 7
    assert cut(file, (120, 80, 180, 120)) is None
    picture = open_jpeg(file)
    assert isinstance(picture, UndecodedJpeg)
    assert np.array_equal(picture.part(1, (9, 8, 70, 60)), decode(file)[8:60, 9:70])


def test_what_follows_the_picture_is_not_taken_for_a_part_of_it():
    file = encoded(restart_marker_rows=1)
    preview = encoded("L", restart_marker_rows=1)
    for box in ((0, 0, 40, 40), (250, 180, 300, 200)):
        assert cut(file + preview, box) == cut(file, box)


@pytest.mark.parametrize("damage", ["missing", "exchanged", "end"])
def test_markers_that_are_not_as_announced_are_left_to_the_reference(damage):
    file = encoded(restart_marker_rows=1)
    second, third = file.index(b"\xff\xd1"), file.index(b"\xff\xd2")
    if damage == "missing":
        file = file[:second] + file[third:]
    elif damage == "exchanged":
        file = file[:second] + b"\xff\xd3" + file[second + 2 :]
    else:
        file = file[: file.rindex(b"\xff\xd9")]
    assert cut(file, (0, 0, 40, 40)) is None
