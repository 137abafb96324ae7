"""Which pixels the network sees: evaluation crops against their references, training distortions by their limits."""

from __future__ import annotations

import colorsys
import math
from collections import Counter
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from reinception.data.images.augment import augment, distort_colours, inception_box
from reinception.data.images.crops import evaluation_pixels
from reinception.data.images.decode import Pixels
from reinception.data.images.random_stream import RandomStream
from reinception.errors import UsageError
from reinception.preprocess import Preprocessing


def example_image(height: int, width: int, seed: int = 0) -> Pixels:
    """Noise blurred a little: has every frequency, so that a shift by half a pixel shows."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=None))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "area"])
@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (300, 300), (333, 499), (40, 30)])
def test_shorter_side_equals_torchvisions_resize_and_centre_crop(height, width, interpolation):
    image = example_image(height, width)
    mode = InterpolationMode("box" if interpolation == "area" else interpolation)
    reference = Compose([Resize(342, interpolation=mode), CenterCrop(299)])(Image.fromarray(image))
    value = Preprocessing(resize="shorter_side", interpolation=interpolation)
    assert np.array_equal(evaluation_pixels(image, value), np.asarray(reference))


def test_central_crop_takes_the_box_of_tensorflow():
    image = np.zeros((100, 203, 3), dtype=np.uint8)
    image[int(6.25) : 94, int(12.6875) : 203 - 12] = 255
    pixels = evaluation_pixels(image, Preprocessing(input_size=64, interpolation="nearest"))
    assert pixels.shape == (64, 64, 3)
    assert pixels.min() == 255
    image[5:95, 11:192] -= 254
    assert set(np.unique(evaluation_pixels(image, Preprocessing(input_size=300, interpolation="nearest")))) == {1}


def test_central_crop_does_not_keep_the_aspect_ratio():
    image = np.zeros((80, 160, 3), dtype=np.uint8)
    image[:, 80:] = 255
    pixels = evaluation_pixels(image, Preprocessing(input_size=70))
    assert pixels[:, 0].max() == 0
    assert pixels[:, -1].min() == 255
    assert np.argmax(pixels[0, :, 0] > 127) == 35


def test_whole_leaves_nothing_out():
    image = example_image(120, 90)
    pixels = evaluation_pixels(image, Preprocessing(input_size=64, resize="whole", interpolation="bicubic"))
    assert np.array_equal(pixels, np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC)))
    assert np.array_equal(
        evaluation_pixels(example_image(64, 64), Preprocessing(input_size=64, resize="whole")), example_image(64, 64)
    )


@pytest.mark.parametrize("resize", ["central_crop", "shorter_side", "whole"])
def test_any_size_of_image_fits_and_grey_gives_the_same_as_its_three_channels(resize):
    value = Preprocessing(input_size=75, resize=resize)
    for height, width in [(1, 1), (1, 400), (7, 3), (76, 75), (200, 201)]:
        grey = example_image(height, width)[:, :, 0]
        pixels = evaluation_pixels(grey, value)
        assert pixels.shape == (75, 75, 3)
        assert np.array_equal(pixels, evaluation_pixels(grey[:, :, None].repeat(3, axis=2), value))


@pytest.mark.parametrize("kind", ["inception", "gentle", "none"])
@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    key=st.fixed_dictionaries(
        {"seed": st.integers(0, 2**40), "epoch": st.integers(0, 500), "index": st.integers(0, 2**31)}
    ),
)
def test_distortions_are_a_function_of_seed_epoch_and_index(kind, shape, key):
    image = example_image(*shape)[:, :, :1].repeat(3, axis=2)
    before = image.copy()
    image.flags.writeable = False
    pixels = augment(image, kind=kind, input_size=40, **key)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (40, 40, 3)
    assert np.array_equal(pixels, augment(image, kind=kind, input_size=40, **key))
    grey = image[:, :, 0]
    assert np.array_equal(pixels, augment(grey, kind=kind, input_size=40, **key))
    assert np.array_equal(image, before)


@pytest.mark.parametrize("kind", ["inception", "gentle"])
def test_another_seed_epoch_or_index_gives_another_distortion(kind):
    image = example_image(60, 60)
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (11, 0, 0), (1, 10, 0), (1, 1, 1)]
    seen = {augment(image, kind=kind, input_size=40, seed=s, epoch=e, index=i).tobytes() for s, e, i in keys}
    assert len(seen) == len(keys)


def test_an_unknown_augmentation_is_an_error():
    with pytest.raises(UsageError, match="unknown augmentation 'strong': inception"):
        augment(example_image(5, 5), kind=cast(Any, "strong"), input_size=5, seed=0, epoch=0, index=0)


@given(width=st.integers(1, 700), height=st.integers(1, 700), key=st.integers(0, 10**6))
def test_an_inception_box_lies_in_the_image_with_the_published_area_and_aspect(width, height, key):
    left, top, right, bottom = inception_box(width, height, RandomStream("test", key))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    box_width, box_height = right - left, bottom - top
    if min(box_width, box_height) > 20:  # whole pixels blur the limits of small boxes
        assert 0.04 < box_width * box_height / (width * height) <= 1
        assert 0.75 * 0.94 < box_width / box_height < 4 / 3 * 1.06


def test_inception_boxes_are_spread_over_areas_aspects_and_places():
    boxes = [inception_box(400, 400, RandomStream("spread", key)) for key in range(4000)]
    areas = np.array([(right - left) * (bottom - top) / 160_000 for left, top, right, bottom in boxes])
    aspects = np.log([(right - left) / (bottom - top) for left, top, right, bottom in boxes])
    assert areas.min() < 0.07
    assert areas.max() > 0.9
    assert np.histogram(areas, bins=5, range=(0.05, 0.55))[0].min() > 0.8 * 4000 / 9.5
    assert abs(aspects.mean()) < 0.02
    assert np.abs(aspects).max() > 0.97 * math.log(4 / 3)
    centres = np.array([(left + right) / 2 for left, _, right, _ in boxes])
    assert abs(centres.mean() - 200) < 3


def test_an_image_no_box_fits_into_falls_back_to_its_centre():
    assert inception_box(1000, 10, RandomStream("wide", 0)) == (493, 0, 506, 10)
    assert inception_box(10, 1000, RandomStream("tall", 0)) == (0, 493, 10, 506)
    assert inception_box(1, 1, RandomStream("dot", 0)) == (0, 0, 1, 1)


class Dealt(RandomStream):
    """RandomStream that are dealt by the test."""

    def __init__(self, *numbers: float) -> None:
        self._numbers = iter(numbers)

    def uniform(self, low: float, high: float) -> float:
        number = next(self._numbers)
        assert low <= number <= high
        return number

    def integer(self, num: int) -> int:
        number = int(next(self._numbers))
        assert 0 <= number < num
        return number


Numbers = tuple[float, float, float, float, int]


def by_the_book(image: Pixels, numbers: Numbers) -> Pixels:
    """The trainer's colour distortion, pixel by pixel with the standard library's HSV (in-range pixels only)."""
    brightness, saturation, turn, contrast, last = numbers

    def contrasted(values: NDArray[np.float64]) -> NDArray[np.float64]:
        means = values.mean(axis=(0, 1))
        return (values - means) * contrast + means

    def turned(values: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = []
        for red, green, blue in values.reshape(-1, 3):
            hue, full, value = colorsys.rgb_to_hsv(red, green, blue)
            rows.append(colorsys.hsv_to_rgb((hue + turn) % 1, min(full * saturation, 1), value))
        return np.array(rows).reshape(values.shape)

    values = image / 255 + brightness / 255
    values = contrasted(turned(values)) if last else turned(contrasted(values))
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)


@settings(max_examples=30, deadline=None)
@given(
    numbers=st.tuples(
        st.floats(-32, 32), st.floats(0.5, 1.5), st.floats(-0.2, 0.2), st.floats(0.5, 1), st.integers(0, 1)
    ),
    seed=st.integers(0, 99),
)
def test_colour_distortion_equals_hsv_by_the_book(numbers, seed):
    image = np.random.default_rng(seed).integers(40, 216, (6, 7, 3), dtype=np.uint8)
    got = distort_colours(image, Dealt(*numbers))
    assert np.abs(got.astype(int) - by_the_book(image, numbers)).max() <= 1


def test_colour_distortion_that_changes_nothing_changes_nothing():
    image = example_image(30, 30)
    for last in (0, 1):
        assert np.abs(distort_colours(image, Dealt(0, 1, 0, 1, last)).astype(int) - image).max() == 0


def test_an_inception_distortion_is_mirrored_half_of_the_time():
    ramp = np.arange(0, 200, dtype=np.uint8)[None, :].repeat(200, axis=0)
    rising = [
        int(pixels[20, 30, 0]) > int(pixels[20, 5, 0])
        for index in range(400)
        for pixels in [augment(ramp, kind="inception", input_size=40, seed=0, epoch=0, index=index)]
    ]
    assert 160 < sum(rising) < 240


def test_a_gentle_distortion_stays_close_to_one_of_the_eight_positions():
    y, x = np.mgrid[0:90, 0:90]
    image = (40 + x + y // 2).astype(np.uint8)
    positions = [np.rot90(image, turns) for turns in range(4)]
    positions = [p.astype(int) for position in positions for p in (position, position[:, ::-1])]
    nearest: Counter[int] = Counter()
    for index in range(200):
        pixels = augment(image, kind="gentle", input_size=90, seed=0, epoch=0, index=index)[:, :, 0].astype(int)
        differences = [np.abs(pixels - position).mean() for position in positions]
        assert min(differences) < 18
        nearest[int(np.argmin(differences))] += 1
    assert len(nearest) == 8
    assert min(nearest.values()) >= 10


def test_no_augmentation_is_the_whole_image_resized():
    image = example_image(50, 80)
    pixels = augment(image, kind="none", input_size=33, seed=1, epoch=2, index=3)
    assert np.array_equal(pixels, evaluation_pixels(image, Preprocessing(input_size=33, resize="whole")))
