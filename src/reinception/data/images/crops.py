"""Evaluation crops of an image, single and many: as boxes and as the exact pixels the network sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from reinception.data.images.decode import MAX_PIXELS, Pixels
from reinception.data.images.resize import FILTERS, Box, in_colour, size_with_shorter_side
from reinception.preprocess import Crops, Preprocessing


def evaluation_pixels(image: Pixels | Image.Image, preprocessing: Preprocessing) -> Pixels:
    """The square (input_size, input_size, 3) uint8 that `preprocessing` makes of a decoded (h, w, 3) or (h, w) image,
    or of a Pillow image of at least three channels, of which the first three count.

    Pillow's resize is the reference: pixel centres at half-integers and, when shrinking, a filter as wide as the
    step (antialiasing). What that means for each rule:

    - `whole`: one resize of the whole image.
    - `shorter_side`: resize the shorter side to `preprocessing.resized_side`, the longer in proportion (rounded down),
      then cut the central square: pixel for pixel what torchvision's `Resize` and `CenterCrop` make of a Pillow image.
    - `central_crop`: the box of TensorFlow's `central_crop` (its first row is int((h - h * fraction) / 2), and as many
      rows are left out below), resized to the square. The filter may look at the neighbours just outside the box.

    TensorFlow 1 itself resized with neither antialiasing nor half-pixel centres, so its pixels differ: shrinking by
    two, it takes every second pixel where Pillow averages. The released weights were trained with that resize; weights
    trained here have only seen this one.
    """
    size = preprocessing.input_size
    whole = image if isinstance(image, Image.Image) else Image.fromarray(image)
    resample = FILTERS[preprocessing.interpolation]
    width, height = whole.size
    if preprocessing.resize == "shorter_side":
        scaled = size_with_shorter_side(width, height, preprocessing.resized_side)
        left, top = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
        square = _Scaled(whole, scaled, resample).crop((left, top, left + size, top + size))
    else:
        fraction = preprocessing.crop_fraction if preprocessing.resize == "central_crop" else 1.0
        left, top = int((width - width * fraction) / 2), int((height - height * fraction) / 2)
        square = whole.resize((size, size), resample, box=(left, top, width - left, height - top))
    pixels = np.array(square)
    return in_colour(pixels) if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, :3])


@dataclass(frozen=True, kw_only=True, order=True)
class Crop:
    """The pixels of `box` in the image whose shorter side is `scale`, resized to the input size where they are more."""

    scale: int
    box: Box
    mirrored: bool


def crop_boxes(width: int, height: int, crops: Crops) -> Iterator[tuple[tuple[str, str], Crop]]:
    """Every crop of an image of that size, `crops.num` of them, each with its names: (square, place in the square).

    Some coincide: the three squares of a square image, or all places where a scale is the input size.
    """
    for scale in crops.scales:
        for square, (left, top) in _squares(*size_with_shorter_side(width, height, scale), scale, crops.num_squares):
            for place, (x, y, side) in _places(scale, crops):
                box = (left + x, top + y, left + x + side, top + y + side)
                for mirrored in (False, True):
                    yield (square, place), Crop(scale=scale, box=box, mirrored=mirrored)


def distinct_crops(width: int, height: int, crops: Crops) -> dict[Crop, int]:
    """The crops to compute and how many of `crops.num` each stands for; mirrored ones are left out."""
    return Counter(crop for _, crop in crop_boxes(width, height, crops) if not crop.mirrored)


def crop_pixels(image: Pixels, crops: list[Crop], preprocessing: Preprocessing) -> Pixels:
    """(len(crops), s, s, 3) uint8 of a decoded image, which is resized once per scale."""
    size, resample = preprocessing.input_size, FILTERS[preprocessing.interpolation]
    whole = Image.fromarray(image)
    scales = {crop.scale: size_with_shorter_side(*whole.size, crop.scale) for crop in crops}
    at_scale = {scale: _Scaled(whole, scaled, resample) for scale, scaled in scales.items()}
    pixels = np.empty((len(crops), size, size, 3), dtype=np.uint8)
    for out, crop in zip(pixels, crops, strict=True):
        cut = at_scale[crop.scale].crop(crop.box)
        # A square is cut first and resized then: it must not see what lies outside it.
        square = in_colour(np.asarray(cut if cut.width == size else cut.resize((size, size), resample)))
        out[:] = square[:, ::-1] if crop.mirrored else square
    return pixels


class _Scaled:
    """An image at another size, to cut boxes from; one that would be huge there (a line) is never made whole."""

    def __init__(self, image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> None:
        self._image, self._size, self._resample = image, size, resample
        self._whole = image.resize(size, resample) if size[0] * size[1] <= MAX_PIXELS // 2 else None

    def crop(self, box: Box) -> Image.Image:
        if self._whole is not None:
            return self._whole.crop(box)
        # Pillow's resize of a part looks at the neighbours outside it, as that of the whole does.
        (width, height), (scaled_width, scaled_height) = self._image.size, self._size
        x, y = width / scaled_width, height / scaled_height
        part = (max(box[0] * x, 0), max(box[1] * y, 0), min(box[2] * x, width), min(box[3] * y, height))
        return self._image.resize((box[2] - box[0], box[3] - box[1]), self._resample, box=part)


def _squares(width: int, height: int, side: int, num: int) -> Iterator[tuple[str, tuple[int, int]]]:
    free = max(width, height) - side
    ends = {"first": 0, "centre": round(free / 2), "last": free}
    for name in ("centre",) if num == 1 else tuple(ends):
        yield name, ((ends[name], 0) if width >= height else (0, ends[name]))


def _places(side: int, crops: Crops) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """(name, (left, top, side)) of the crops of a square."""
    size, free = crops.input_size, side - crops.input_size
    yield "top left", (0, 0, size)
    yield "top right", (free, 0, size)
    yield "bottom left", (0, free, size)
    yield "bottom right", (free, free, size)
    yield "centre", (round(free / 2), round(free / 2), size)
    if crops.whole:
        yield "whole", (0, 0, side)
