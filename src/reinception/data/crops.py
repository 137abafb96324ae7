"""The part of a picture the network is scored on, as exactly the pixels it will see."""

from __future__ import annotations

import numpy as np
from PIL import Image

from reinception.data.decode import Pixels
from reinception.protocol import Interpolation, Preprocessing

FILTERS: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}


def evaluation_pixels(image: Pixels, preprocessing: Preprocessing) -> Pixels:
    """The square (input_size, input_size, 3) uint8 that `preprocessing` makes of a decoded (h, w, 3) or (h, w) picture.

    Pillow's resize is the reference: pixel centres at half-integers and, when shrinking, a filter as wide as the
    step (antialiasing). What that means for each rule:

    - `whole`: one resize of the whole picture.
    - `shorter_side`: resize the shorter side to `preprocessing.resized_side`, the longer in proportion (rounded down),
      then cut the central square: pixel for pixel what torchvision's `Resize` and `CenterCrop` make of a Pillow image.
    - `central_crop`: the box of TensorFlow's `central_crop` (its first row is int((h - h * fraction) / 2), and as many
      rows are left out below), resized to the square. The filter may look at the neighbours just outside the box.

    TensorFlow 1 itself resized with neither antialiasing nor half-pixel centres, so its pixels differ: shrinking by
    two, it takes every second pixel where Pillow averages. The released weights were made with that resize; weights
    trained here were never shown anything but this one.
    """
    size = preprocessing.input_size
    picture = Image.fromarray(image)
    resample = FILTERS[preprocessing.interpolation]
    width, height = picture.size
    if preprocessing.resize == "shorter_side":
        side = preprocessing.resized_side
        shorter = min(width, height)
        resized = picture.resize((side * width // shorter, side * height // shorter), resample)
        left, top = round((resized.width - size) / 2), round((resized.height - size) / 2)
        square = resized.crop((left, top, left + size, top + size))
    else:
        fraction = preprocessing.crop_fraction if preprocessing.resize == "central_crop" else 1.0
        left, top = int((width - width * fraction) / 2), int((height - height * fraction) / 2)
        square = picture.resize((size, size), resample, box=(left, top, width - left, height - top))
    return in_colour(np.array(square))


def in_colour(image: Pixels) -> Pixels:
    """(h, w, 3) of a picture that may be (h, w) grey: its value three times."""
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
