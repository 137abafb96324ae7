"""The images that the parity gate uses: the user's, those that the run held out, or a bundled handful."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from reinception.data.images.decode import Pixels, decode
from reinception.data.images.resize import in_colour
from reinception.data.loading.read import pixels_of
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record
from reinception.errors import BadImage, ReinceptionError
from reinception.export.gate import CheckImages
from reinception.inference.calibration_images import records_in, spread
from reinception.inference.evaluation_split import select
from reinception.model.artifact import Manifest

MOST = 100
"""Images that are compared, of a longer list evenly spread ones."""

MOST_BYTES = 1 << 29
"""Of decoded pixels: of very large images fewer are compared."""

_BUNDLED = Path(__file__).parent / "images"


def check_images(data: str | None, model: str | Path, manifest: Manifest) -> CheckImages:
    """At most `MOST` decoded images: of `data`, of what the run `model` held out, or the bundled ones.

    Raises ReinceptionError where `data` holds none that can be read.
    """
    if data is not None:
        images = decoded(records_in(data), str(data))
        if not images.pixels:
            raise ReinceptionError(f"{data}: holds no image that can be read")
        return images
    with suppress(ReinceptionError, OSError, ValueError, KeyError):
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
        chosen = select(open_source(config["data"]), [manifest])
        images = decoded(chosen.records, f"{config['data']}, split {chosen.split}")
        if chosen.as_in_training and images.pixels:
            return images
    return bundled()


def decoded(records: Sequence[Record], what: str) -> CheckImages:
    """Those of evenly spread records that can be read."""
    pixels: list[Pixels] = []
    names: list[str] = []
    for record in spread(records, MOST):
        if sum(one.nbytes for one in pixels) > MOST_BYTES:
            break
        with suppress(BadImage):
            pixels.append(in_colour(pixels_of(record)))
            names.append(record.name)
    return CheckImages(pixels=pixels, names=names, what=what)


def bundled() -> CheckImages:
    """Two natural images and what is made of them: odd sizes, turned, grey, almost black, almost white, contrast."""
    found: dict[str, Pixels] = {}
    for file in sorted(_BUNDLED.glob("*.jpg")):
        whole = decode(file)
        grey = np.repeat(whole.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
        variants = {
            "whole": whole,
            "odd": whole[7:184, 11:332],
            "turned": np.rot90(whole),
            "strip": whole[100:131],
            "small": whole[60:93, 80:141],
            "grey": grey,
            "dark": whole // 32,
            "bright": 255 - (255 - whole) // 32,
            "contrast": np.where(whole > 127, 255, 0).astype(np.uint8),
        }
        found |= {f"bundled {file.stem}, {name}": np.ascontiguousarray(one) for name, one in variants.items()}
    return CheckImages(pixels=list(found.values()), names=list(found), what="bundled")
