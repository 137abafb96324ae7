"""What the value that describes preprocessing promises."""

from __future__ import annotations

import json

import pytest

from reinception.errors import ReinceptionError
from reinception.preprocess import Preprocessing


def test_preprocessing_survives_a_round_trip_through_json():
    value = Preprocessing(
        input_size=128,
        resize="whole",
        crop_fraction=0.9,
        interpolation="bicubic",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    assert Preprocessing.from_json(json.loads(json.dumps(value.to_json()))) == value


def test_the_default_is_the_published_evaluation_of_the_released_network():
    value = Preprocessing()
    assert (value.input_size, value.resize, value.crop_fraction) == (299, "central_crop", 0.875)
    assert value.mean == value.std == (0.5, 0.5, 0.5)
    assert value.resized_side == 342
    assert value.to_json()["value_range"] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("input_size", 0),
        ("input_size", 299.5),
        ("input_size", True),
        ("input_size", "299"),
        ("resize", "squash"),
        ("crop_fraction", 0),
        ("crop_fraction", 1.5),
        ("crop_fraction", float("nan")),
        ("interpolation", "cubic"),
        ("mean", [0.5]),
        ("mean", 0.5),
        ("mean", [0.5, 0.5, float("inf")]),
        ("std", [0.0, 0.5, 0.5]),
        ("value_range", [0, 255]),
        ("value_range", 1),
    ],
)
def test_a_senseless_field_in_a_file_is_refused_by_name(field, bad):
    with pytest.raises(ReinceptionError, match=field) as caught:
        Preprocessing.from_json({**Preprocessing().to_json(), field: bad})
    assert "\n" not in str(caught.value)


def test_a_missing_or_unknown_field_is_refused_by_name():
    values = Preprocessing().to_json()
    del values["std"]
    with pytest.raises(ReinceptionError, match="lacks std"):
        Preprocessing.from_json(values)
    with pytest.raises(ReinceptionError, match="colour_space"):
        Preprocessing.from_json({**Preprocessing().to_json(), "colour_space": "lab"})
    with pytest.raises(ReinceptionError, match="JSON object"):
        Preprocessing.from_json(json.loads("[1, 2]"))
