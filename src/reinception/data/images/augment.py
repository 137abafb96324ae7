"""Training augmentations: functions of an image and of random numbers fixed by (seed, epoch, index)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reinception.data.images.decode import Pixels
from reinception.data.images.jpeg import TrainingImage, scale_denominator_for
from reinception.data.images.random_stream import RandomStream
from reinception.data.images.resize import FILTERS, Box, in_colour, mirrored, resize_to_square
from reinception.preprocess import Interpolation
from reinception.recipe import Augmentation, distortions

# The Inception crop and colours: tensorflow/models, research/inception, image_processing.py. GoogLeNet's paper has
# 8 % as the smallest area (section 6); the trainer that produced the released weights has 5 %.
INCEPTION_AREA = (0.05, 1.0)
INCEPTION_ASPECT = (3 / 4, 4 / 3)
INCEPTION_ATTEMPTS = 100
INCEPTION_INTERPOLATIONS: tuple[Interpolation, ...] = ("bilinear", "nearest", "bicubic", "area")
BRIGHTNESS = 32.0  # grey levels of 255
SATURATION = (0.5, 1.5)
HUE = 0.2  # of a full turn
CONTRAST = (0.5, 1.5)

# The gentle set: our choice, for images whose subject fills the frame and whose borders carry information.
GENTLE_SIDE = (0.94, 1.0)
GENTLE_BRIGHTNESS = 12.0
GENTLE_CONTRAST = (0.9, 1.1)

# What can be joined by name: our choice, too.
SHIFT_SIDE = (0.92, 1.0)
LIGHT = (0.85, 1.15)


def augment(image: TrainingImage, *, kind: Augmentation, input_size: int, seed: int, epoch: int, index: int) -> Pixels:
    """The square (input_size, input_size, 3) uint8 that training sees of a decoded (h, w, 3) or (h, w) image.

    - `inception`: a random crop (`inception_box`), resized with a random interpolation, mirrored in half of the cases,
      its colours distorted (`distort_colours`). For images of a scene.
    - `crop`: such a crop, resized bilinearly, and mirrored in half of the cases; the colours stay. What most recipes
      do.
    - `gentle`: one of the eight flips and quarter turns, a box of 94 to 100 % of each side at a random place (scale and
      translation of a few per cent), brightness up to 12 levels and contrast up to 10 % up or down.
    - `none`: the whole image, resized.
    - `flips`, `shifts` and others of recipe.distortions.PARTS, joined by plus signs: see `_composed`.

    A large JPEG that is not decoded yet is decoded at the smallest of its scales that has a pixel for every pixel of
    the result. Equal arguments give equal pixels, in any process and order. A grey image (h, w) gives the same as its
    (h, w, 3).
    """
    if kind == "inception":
        return _inception(image, input_size, RandomStream("augment", seed, epoch, index))
    if kind == "crop":
        return _crop(image, input_size, RandomStream("augment", seed, epoch, index))
    if kind == "gentle":
        return _gentle(_whole(image, input_size), input_size, RandomStream("augment", seed, epoch, index))
    if kind == "none":
        whole = Image.fromarray(_whole(image, input_size))
        return in_colour(np.array(whole.resize((input_size, input_size), FILTERS["bilinear"])))
    return _composed(image, input_size, distortions(kind), (seed, epoch, index))


def _inception(image: TrainingImage, size: int, random: RandomStream) -> Pixels:
    box = inception_box(*_size(image), random)
    interpolation = INCEPTION_INTERPOLATIONS[random.integer(len(INCEPTION_INTERPOLATIONS))]
    square = resize_to_square(_part(image, box, size), size, interpolation)
    if random.integer(2):
        square = mirrored(square)
    return in_colour(distort_colours(square, random))


def _crop(image: TrainingImage, size: int, random: RandomStream) -> Pixels:
    square = resize_to_square(_part(image, inception_box(*_size(image), random), size), size, "bilinear")
    return in_colour(mirrored(square) if random.integer(2) else square)


def _size(image: TrainingImage) -> tuple[int, int]:
    return (image.shape[1], image.shape[0]) if isinstance(image, np.ndarray) else (image.width, image.height)


def _part(image: TrainingImage, box: Box, size: int) -> Pixels:
    """The pixels of the box; of an undecoded JPEG those that the box touches at the smallest scale that suits."""
    left, top, right, bottom = box
    if isinstance(image, np.ndarray):
        return image[top:bottom, left:right]
    scale = scale_denominator_for(right - left, bottom - top, size)
    return image.pixels(scale)[top // scale : -(-bottom // scale), left // scale : -(-right // scale)]


def _whole(image: TrainingImage, size: int) -> Pixels:
    if isinstance(image, np.ndarray):
        return image
    return image.pixels(scale_denominator_for(image.width * GENTLE_SIDE[0], image.height * GENTLE_SIDE[0], size))


def inception_box(width: int, height: int, random: RandomStream) -> Box:
    """(left, top, right, bottom) of a random part: area evenly from 5 to 100 %, aspect ratio 3/4 to 4/3.

    The aspect ratio (width / height) is even in its logarithm, so upright and flat boxes are equally likely (the TF
    trainer random the ratio and then the height evenly). A box that does not fit is drawn again, up to 100 times; then
    the largest central box whose aspect ratio is allowed is taken (the TF trainer takes the whole image).
    """
    low, high = (math.log(bound) for bound in INCEPTION_ASPECT)
    for _ in range(INCEPTION_ATTEMPTS):
        area = width * height * random.uniform(*INCEPTION_AREA)
        aspect = math.exp(random.uniform(low, high))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            left, top = random.integer(width - box_width + 1), random.integer(height - box_height + 1)
            return left, top, left + box_width, top + box_height
    box_width = max(1, min(width, round(height * INCEPTION_ASPECT[1])))
    box_height = max(1, min(height, round(width / INCEPTION_ASPECT[0])))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height


def distort_colours(image: Pixels, random: RandomStream) -> Pixels:
    """Brightness, saturation, hue and contrast, changed at random in one of the trainer's two orders, then clipped.

    Brightness moves by up to 32 levels; saturation and contrast scale by 0.5 to 1.5; hue turns by up to a fifth. One
    order puts contrast last, the other before saturation. Nothing is clipped in between. Takes and gives (h, w, 3) or
    (h, w); a grey has no saturation and no hue to change.
    """
    brightness = random.uniform(-BRIGHTNESS, BRIGHTNESS)
    saturation, turn = random.uniform(*SATURATION), random.uniform(-HUE, HUE)
    contrast, contrast_is_last = random.uniform(*CONTRAST), random.integer(2)
    planes = np.moveaxis(np.atleast_3d(image), 2, 0).astype(np.float32, order="C") + np.float32(brightness)
    if not contrast_is_last:
        planes = _scale_contrast(planes, contrast)
    if len(planes) == 3:
        planes = _turn_colours(planes, saturation, turn)
    if contrast_is_last:
        planes = _scale_contrast(planes, contrast)
    distorted = np.moveaxis(_to_uint8(planes), 0, 2)
    return np.ascontiguousarray(distorted if image.ndim == 3 else distorted[:, :, 0])


def _scale_contrast(planes: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Each channel's distance from its own mean, scaled."""
    means = planes.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    return (planes - means) * np.float32(factor) + means


def _turn_colours(planes: NDArray[np.float32], saturation: float, turn: float) -> NDArray[np.float32]:
    """Saturation scaled (up to full) and hue turned, as in HSV: the largest channel of each pixel keeps its value.

    The colour circle is measured in sixths from red; at hue h the channel that is full at sixth k has the part
    min(max(|h - k| - 1, 0), 1) of the chroma taken from the largest value, with |h - k| the way around the circle.
    """
    red, green, blue = planes
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    safe = np.maximum(chroma, np.float32(1e-6))
    hue = np.where(
        value == red,
        (green - blue) / safe,
        np.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    ).astype(np.float32)
    hue += np.float32(6 * turn)
    chroma = np.minimum(chroma * np.float32(saturation), np.maximum(value, 0))
    turned = np.empty_like(planes)
    for channel, full_at in enumerate((0, 2, 4)):
        way = hue - np.float32(full_at)
        way = np.abs(way - 6 * np.rint(way / 6))  # 0 to 3 sixths around the circle
        turned[channel] = value - chroma * np.clip(way - 1, 0, 1)
    return turned


def _gentle(image: Pixels, size: int, random: RandomStream) -> Pixels:
    height, width = image.shape[:2]
    side = random.uniform(*GENTLE_SIDE)
    left, top = random.uniform(0, width * (1 - side)), random.uniform(0, height * (1 - side))
    box = (left, top, left + width * side, top + height * side)
    square = np.asarray(Image.fromarray(image).resize((size, size), FILTERS["bilinear"], box=box))
    square = np.rot90(square, random.integer(4))
    if random.integer(2):
        square = square[:, ::-1]
    brightness, contrast = random.uniform(-GENTLE_BRIGHTNESS, GENTLE_BRIGHTNESS), random.uniform(*GENTLE_CONTRAST)
    mean = float(square.sum(dtype=np.int64)) / square.size
    levels = (np.arange(256, dtype=np.float64) - mean) * contrast + mean + brightness
    return in_colour(_to_uint8(levels)[square])


def _composed(image: TrainingImage, size: int, parts: tuple[str, ...], key: tuple[int, int, int]) -> Pixels:
    """The distortions named by `parts`, each with random numbers of its own, so that adding one changes no other."""
    whole = _whole(image, size)
    height, width = whole.shape[:2]
    random = {part: RandomStream(f"augment {part}", *key) for part in parts}
    box = (0.0, 0.0, float(width), float(height))
    if chance := random.get("shifts"):
        side = chance.uniform(*SHIFT_SIDE)
        left, top = chance.uniform(0, width * (1 - side)), chance.uniform(0, height * (1 - side))
        box = (left, top, left + width * side, top + height * side)
    square = np.asarray(Image.fromarray(whole).resize((size, size), FILTERS["bilinear"], box=box))
    if (chance := random.get("mirror")) and chance.integer(2):
        square = square[:, ::-1]
    if chance := random.get("flips"):
        square = square[:, ::-1] if chance.integer(2) else square
        square = square[::-1] if chance.integer(2) else square
    if chance := random.get("half_turns"):
        square = np.rot90(square, 2 * chance.integer(2))
    if chance := random.get("quarter_turns"):
        square = np.rot90(square, chance.integer(4))
    if chance := random.get("light"):
        brightness, contrast = chance.uniform(*LIGHT), chance.uniform(*LIGHT)
        mean = float(square.sum(dtype=np.int64)) / square.size
        square = _to_uint8((np.arange(256, dtype=np.float64) - mean) * contrast + mean * brightness)[square]
    return in_colour(np.ascontiguousarray(square))


def _to_uint8(values: NDArray[np.floating]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
