"""What the FID network reads of an image in each mode, to the bit where it is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reinception.errors import ReinceptionError, UsageError
from reinception.generative import MODES
from reinception.generative.modes import as_bytes, mode_named, network_input, normalised, resized, tf1_bilinear


def test_tensorflow_1_starts_at_the_corner_and_clamps() -> None:
    row = np.array([0, 1, 2, 3], dtype=np.float32).reshape(1, 1, 4)
    assert tf1_bilinear(row, 1, 8).ravel().tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
    assert tf1_bilinear(row.reshape(1, 4, 1), 8, 1).ravel().tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_flat_image_is_normalised_exactly(mode: str, value: int) -> None:
    expected = np.float32(value / 128 - 1 if MODES[mode].normalisation == "(x-128)/128" else 2 * value / 255 - 1)
    for size, tolerance in (((299, 299), 0), ((40, 30), 1e-6), ((700, 500), 1e-6)):
        found = network_input(np.full((*size, 3), value, dtype=np.uint8), MODES[mode])
        assert found.shape == (3, 299, 299) and found.dtype == np.float32
        assert np.abs(found - expected).max() <= tolerance + 6e-8 * (value == 128)


def test_the_two_ranges_in_numbers() -> None:
    values = np.array([0, 128, 255], dtype=np.float32)
    assert normalised(values, "(x-128)/128").tolist() == [-1, 0, 0.9921875]
    assert normalised(values, "2x/255-1") == pytest.approx([-1, 0.00392157, 1], abs=1e-7)


@pytest.mark.parametrize("mode", list(MODES))
def test_an_image_of_the_networks_size_is_not_resized(mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(299, 299, 3), dtype=np.uint8)
    found = resized(pixels, MODES[mode].resize)
    assert np.abs(found - pixels.transpose(2, 0, 1)).max() < 1e-4


@pytest.mark.parametrize("mode", list(MODES))
def test_grey_is_the_same_three_times_and_nothing_depends_on_the_images_own_range(mode: str) -> None:
    grey = np.random.default_rng(0).integers(60, 190, size=(33, 47), dtype=np.uint8)
    found = network_input(grey, MODES[mode])
    assert (found[0] == found[1]).all() and (found[0] == found[2]).all()
    coloured = network_input(np.repeat(grey[:, :, None], 3, axis=2), MODES[mode])
    assert (found == coloured).all()
    assert found.min() > -0.9 and found.max() < 0.9  # bicubic overshoots


def test_the_modes_differ_where_images_are_resized() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(600, 400, 3), dtype=np.uint8)
    inputs = [network_input(pixels, mode) for mode in MODES.values()]
    for index, one in enumerate(inputs):
        assert all(np.abs(one - other).mean() > 0.01 for other in inputs[:index])


def test_modes_are_values_with_named_fields() -> None:
    assert MODES["clean"].to_json() == {
        "name": "clean",
        "resize": "pillow_bicubic",
        "normalisation": "(x-128)/128",
        "quantisation": "before",
        "like": "clean-fid, mode clean",
    }
    with pytest.raises(UsageError, match="it is one of tf, pytorch_fid, clean, torchmetrics"):
        mode_named("tensorflow")


def test_floats_of_a_named_range_are_the_same_bits_as_their_bytes() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, axis=1)
    for kind in (np.float32, np.float64):
        assert (as_bytes(pixels.astype(kind) / 255, (0, 1)) == pixels).all()
        assert (as_bytes(pixels.astype(kind) / 127.5 - 1, (-1, 1)) == pixels).all()
        assert (as_bytes(pixels.astype(kind), (0, 255)) == pixels).all()
    assert (as_bytes(torch.from_numpy(pixels)) == pixels).all()
    assert as_bytes(pixels[:, :1]).shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    ("images", "value_range", "said"),
    [
        (np.full((1, 3, 2, 2), 0.5), None, r"need their value_range, .*; found 0.5 to 0.5"),
        (np.full((1, 3, 2, 2), -0.9), (0, 1), r"outside the value_range 0 to 1: found -0.9 to -0.9"),
        (np.full((1, 3, 2, 2), 77.0), (-1, 1), r"outside the value_range -1 to 1: found 77 to 77"),
        (np.full((1, 3, 2, 2), np.nan), (0, 1), r"outside the value_range"),
        (np.zeros((3, 2, 2), dtype=np.uint8), None, r"must have the shape \(n, 3, height, width\)"),
        (np.zeros((1, 2, 2, 3), dtype=np.uint8), None, r"must have the shape"),
        (np.zeros((1, 3, 2, 2), dtype=np.int64), None, r"must be uint8"),
    ],
)
def test_images_whose_range_is_not_clear_are_refused(
    images: np.ndarray, value_range: tuple[float, float] | None, said: str
) -> None:
    with pytest.raises(ReinceptionError, match=said):
        as_bytes(images, value_range)
