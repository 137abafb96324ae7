"""That a part which is cut out of a JPEG has, at every scale, the very pixels of the whole picture."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_data_jpeg import encoded, photograph

from reinception.data.images import jpeg_cut
from reinception.data.images.jpeg import Jpeg, open_jpeg, scaled_box
from reinception.data.images.jpeg_cut import Box, cut

simplejpeg = pytest.importorskip("simplejpeg")
pytest.importorskip("numba")

SCALES = (1, 2, 4, 8)


@pytest.fixture(autouse=True, scope="module")
def prepared() -> None:
    jpeg_cut.prepare()


def opened(data: bytes) -> Jpeg:
    picture = open_jpeg(data)
    assert picture is not None
    return picture


def is_cut(picture: Jpeg, box: Box, shrink: int) -> bool:
    """Whether the box of the stored picture is cut out, and not decoded with all the rest."""
    return cut(picture.data, picture.header, scaled_box(box, shrink), shrink) is not None


def is_equal(picture: Jpeg, box: Box, shrink: int) -> bool:
    left, top, right, bottom = scaled_box(box, shrink)
    return np.array_equal(picture.part(box, shrink), picture.pixels(shrink)[top:bottom, left:right])


def grainy(height: int, width: int, mode: str = "RGB") -> Image.Image:
    """Structure of all sizes and sharp edges: codes of every length, and blocks that are full to the last."""
    random = np.random.default_rng(height)
    pixels = np.asarray(photograph(height, width)).astype(np.int16)
    grain = random.normal(0, 1, pixels.shape) * random.choice([0, 4, 40, 400], (height, 1, 1))
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)).convert(mode)


BOXES = (
    (0, 0, 40, 24),
    (81, 37, 163, 150),
    (100, 119, 101, 120),
    (3, 1, 260, 17),
    (170, 20, 203, 201),
    (0, 190, 9, 201),
)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options",
    [
        {"quality": 90},
        {"quality": 100, "subsampling": 0},
        {"quality": 30, "subsampling": 1},
        {"quality": 98, "optimize": True},
        {"quality": 5},
        {"quality": 90, "restart_marker_blocks": 3},
        {"quality": 90, "restart_marker_rows": 1},
        {"quality": 95, "subsampling": 0, "restart_marker_blocks": 7},
    ],
    ids=str,
)
def test_a_part_has_the_pixels_of_the_whole_however_it_is_coded(mode, options):
    file = io.BytesIO()
    grainy(201, 263, mode).save(file, "JPEG", **options)
    picture = opened(file.getvalue())
    for box, shrink in itertools.product(BOXES, SCALES):
        assert is_equal(picture, box, shrink), (box, shrink)
        # At 1/8 4:2:2 is decoded whole: half its colours' blocks would be one pixel and a half of theirs.
        assert is_cut(picture, box, shrink) or (shrink == 8 and options.get("subsampling") == 1 and mode == "RGB")


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411"])
def test_every_subsampling_is_cut_at_full_size(subsampling):
    data = simplejpeg.encode_jpeg(np.asarray(grainy(201, 263)), quality=92, colorsubsampling=subsampling)
    picture = opened(data)
    for box, shrink in itertools.product(BOXES, SCALES):
        assert is_equal(picture, box, shrink), (box, shrink)
        assert is_cut(picture, box, shrink) or shrink == 8


@settings(max_examples=120, deadline=None)
@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
    shrink=st.sampled_from(SCALES),
    orientation=st.integers(1, 8),
    subsampling=st.sampled_from([0, 1, 2]),
    restarts=st.integers(0, 5),
)
def test_any_part_of_any_size_turned_any_way_is_that_of_the_whole(
    size, corners, shrink, orientation, subsampling, restarts
):
    height, width = size if shrink == 1 else (max(40, side) for side in size)  # tiny ones are the same at two scales
    data = encoded(grainy(height, width), orientation, subsampling=subsampling, restart_marker_blocks=restarts)
    picture = opened(data)
    (left, right), (top, bottom) = sorted(corners[:2]), sorted(corners[2:])
    left, top = int(left * (picture.width - 1)), int(top * (picture.height - 1))
    right, bottom = max(left + 1, int(right * picture.width)), max(top + 1, int(bottom * picture.height))
    assert is_equal(picture, (left, top, right, bottom), shrink)


def test_where_the_files_tables_lack_a_code_it_is_decoded_whole():
    """Its rows each begin anew, so no difference between two of them has a code; in the part there are such."""
    file = io.BytesIO()
    grainy(201, 263).save(file, "JPEG", quality=90, restart_marker_rows=1, optimize=True)
    picture = opened(file.getvalue())
    assert not is_cut(picture, (81, 37, 163, 150), 1)
    assert is_equal(picture, (81, 37, 163, 150), 1)


def test_a_progressive_one_is_decoded_whole():
    picture = opened(encoded(grainy(150, 180), progressive=True))
    for shrink in SCALES:
        assert not is_cut(picture, (0, 0, 40, 40), shrink)
        assert is_equal(picture, (0, 0, 40, 40), shrink)


def test_colours_that_are_not_jfifs_are_not_taken_for_them():
    """A file without JFIF's mark, whose colours are named R, G and B, holds red, green and blue."""
    data = encoded(grainy(150, 180), subsampling=0)
    start, frame, order = data.index(b"\xff\xe0"), data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    named = bytearray(data)
    for colour, name in enumerate(b"RGB"):
        named[frame + 10 + 3 * colour] = name
        named[order + 5 + 2 * colour] = name
    picture = opened(bytes(named[:start] + named[start + 18 :]))
    assert not np.array_equal(picture.pixels(1), opened(data).pixels(1))
    for shrink in SCALES:
        assert is_equal(picture, (30, 40, 70, 90), shrink)
        assert is_cut(picture, (30, 40, 70, 90), shrink) == (shrink < 8)


def test_what_saves_too_little_is_decoded_whole():
    picture = opened(encoded(grainy(150, 180)))
    assert is_cut(picture, (0, 0, 90, 75), 1)
    assert not is_cut(picture, (0, 0, 180, 150), 1)
    assert not is_cut(picture, (4, 4, 176, 148), 1)


def test_damage_is_noticed_or_gives_a_picture_and_leads_nowhere_else():
    """Bits are changed anywhere, also in the tables that the walk relies on."""
    whole = bytearray(encoded(grainy(201, 263), optimize=True))
    random = np.random.default_rng(8)
    outcomes = {"cut": 0, "not cut": 0}
    for number in range(3000):
        data = bytearray(whole)
        end = len(data) if number % 2 else 700
        for place in random.integers(2, end, random.integers(1, 4)):
            data[place] ^= 1 << random.integers(8)
        picture = open_jpeg(bytes(data))
        if picture is not None and picture.width > 120 and picture.height > 150:
            found = is_cut(picture, (60, 60, 120, 150), (1, 4, 8)[number % 3])
            outcomes["cut" if found else "not cut"] += 1
    assert min(outcomes.values()) > 300


def test_without_preparation_or_numba_the_pixels_are_the_same():
    """In a process of its own: what is compiled can't be forgotten."""
    program = """
import sys
if sys.argv[1] == "no numba": sys.modules["numba"] = None
from reinception.data.images import jpeg, jpeg_cut
if sys.argv[1] != "unprepared": jpeg_cut.prepare()
picture = jpeg.open_jpeg(sys.stdin.buffer.read())
found = jpeg_cut.cut(picture.data, picture.header, (60, 60, 120, 150), 1)
sys.stdout.buffer.write(bytes([found is not None]) + picture.part((60, 60, 120, 150), 1).tobytes())
"""
    data = encoded(grainy(201, 263))
    said = {
        how: subprocess.run([sys.executable, "-c", program, how], input=data, check=True, capture_output=True).stdout
        for how in ("prepared", "unprepared", "no numba")
    }
    assert [output[0] for output in said.values()] == [1, 0, 0]
    assert len({output[1:] for output in said.values()}) == 1


def test_where_nothing_can_be_kept_on_disk_it_is_compiled_all_the_same(tmp_path):
    """As from a read-only installation by a user without a cache: the package is copied to where nobody may write."""
    source = Path(jpeg_cut.__file__).parents[2]
    program = "from reinception.data.images import jpeg_walk as w; print(w.walk._cache.__class__.__name__, w.FAILED)"
    environment = os.environ | {"PYTHONPATH": str(source), "NUMBA_CACHE_LOCATOR_CLASSES": "_ZipCacheLocator"}
    run = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["NullCache", "-1"]
