"""That no image needs more memory than its pixels allow: 26 bytes for each and 64 MB, whatever the file says."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data_check import corpus

from reinception.data.images.decode import MAX_PIXELS

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read as Linux gives it")

# At 16 megapixels, where the room no longer hides it, a lossless WebP with transparency needs 23.5 bytes a pixel.
BYTES_PER_PIXEL, ROOM = 26, 64 << 20

# Each file in a process of its own: what it needed at its peak, beyond what the process began with.
PEAKS = """
import json, os, sys
from pathlib import Path
import reinception.data.loading.read
from reinception.errors import BadImage
from reinception.data.images.decode import decode
from reinception.data.loading.read import training_image
from reinception.data.sources.records import Record

for path in sorted(Path(sys.argv[1]).iterdir()):
    began = os.sysconf("SC_PAGE_SIZE") * int(Path("/proc/self/statm").read_text().split()[1])
    if (child := os.fork()) == 0:
        for read in (decode, lambda path: training_image(Record(path=path, name=path.name, target=0))):
            try:
                image = read(path)
                image if hasattr(image, "shape") else image.pixels(1)
            except BadImage:
                pass
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    print(json.dumps([path.name, status, 1024 * usage.ru_maxrss - began]), flush=True)
"""


def peaks(folder: Path) -> dict[str, int]:
    """Bytes at the peak for each file; a process that did not end well fails the test."""
    run = subprocess.run([sys.executable, "-c", PEAKS, str(folder)], check=True, capture_output=True, text=True)
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [name for name, status, _ in rows if status] == []
    return {name: peak for name, _, peak in rows}


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def costly(height: int, width: int) -> dict[str, bytes]:
    """Every way of storing an image that takes detours through other modes."""
    random = np.random.default_rng(0)
    colour = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    alpha = colour.convert("L")
    turned = Image.Exif()
    turned[0x0112] = 7
    clear = colour.convert("RGBA")
    clear.putalpha(alpha)
    fast = {"compress_level": 1}
    return {
        "alpha.png": encoded(clear, "PNG", **fast),
        "alpha_turned.png": encoded(clear, "PNG", exif=turned, **fast),
        "colour_key.png": encoded(colour, "PNG", transparency=(1, 2, 3), **fast),
        "palette.png": encoded(colour.quantize(64), "PNG", transparency=3, **fast),
        "grey_alpha.png": encoded(clear.convert("LA"), "PNG", **fast),
        "deep.png": encoded(
            Image.fromarray(random.integers(0, 65536, (height, width), dtype=np.uint16)), "PNG", **fast
        ),
        "cmyk.jpg": encoded(colour.convert("CMYK"), "JPEG"),
        "turned.jpg": encoded(colour, "JPEG", exif=turned),
        "progressive.jpg": encoded(colour, "JPEG", exif=turned, progressive=True, subsampling=0),
        "alpha.webp": encoded(clear, "WEBP", method=0),
        "alpha.tif": encoded(clear, "TIFF"),
        "wide.tif": encoded(Image.fromarray(random.integers(0, 65536, (height, width), dtype=np.int32)), "TIFF"),
        "one.gif": encoded(colour.quantize(16), "GIF"),
    }


def plant(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_an_image_needs_at_most_26_bytes_for_a_pixel(tmp_path: Path) -> None:
    height, width = 1100, 1500
    found = peaks(plant(tmp_path / "costly", costly(height, width)))
    assert len(found) == 13
    limit = BYTES_PER_PIXEL * height * width + ROOM
    assert {name: peak for name, peak in found.items() if peak > limit} == {}
    assert max(found.values()) > 3 * height * width  # it is measured at all


def pixels_allowed(data: bytes) -> int:
    """What the file says of its size; 0 where that is unreadable or more than is ever decoded."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            num = image.width * image.height
    except Exception:  # damaged in any way
        return 0
    return num if num <= MAX_PIXELS else 0


def test_bad_images_and_bombs_need_no_more_than_they_say(tmp_path: Path) -> None:
    files = corpus()
    found = peaks(plant(tmp_path / "corpus", files))
    assert len(found) == len(files) >= 40
    limits = {name: ROOM + BYTES_PER_PIXEL * pixels_allowed(data) for name, data in files.items()}
    assert {name: peak for name, peak in found.items() if peak > limits[name]} == {}
    assert sum(limit == ROOM for limit in limits.values()) > 10
