"""A real Inception-v3 in Keras's layout, converted, sees what Keras sees in real images; skipped where it is absent."""

from __future__ import annotations

import warnings
from pathlib import Path

import keras
import pytest
import torch

from foreign_weights import assert_same_bits, real_weights
from reinception.data.images.crops import evaluation_pixels
from reinception.data.images.decode import decode
from reinception.data.loading.loader import normalise
from reinception.model.artifact import NO_CLASSIFIER
from reinception.weights.convert import Conversion, convert
from reinception.weights.library_files import export
from reinception.weights.weight_files import read


@pytest.fixture(scope="module")
def converted() -> Conversion:
    return convert(real_weights())


def test_it_is_known_as_keras_without_its_top(converted: Conversion) -> None:
    assert converted.found is not None
    assert converted.found.layout.name == "keras-legacy"
    assert (converted.found.num_classes, converted.found.has_scale) == (None, False)
    assert converted.manifest.origin["source"] == "keras"
    assert converted.manifest.classes == NO_CLASSIFIER
    assert converted.report.dropped == ()


def test_its_features_of_16_solar_cells_are_keras_own(converted: Conversion, solar_cells: Path) -> None:
    preprocessing = converted.manifest.preprocessing
    files = sorted(solar_cells.rglob("*.png"))[::2]
    assert len(files) == 16
    pixels = torch.stack([torch.from_numpy(evaluation_pixels(decode(file), preprocessing)) for file in files])
    inputs = normalise(pixels.permute(0, 3, 1, 2), preprocessing)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # Keras and NumPy about each other
        model = keras.applications.InceptionV3(
            weights=None, include_top=False, pooling="avg", input_shape=(299, 299, 3)
        )
        model.load_weights(real_weights())
        array = keras.applications.inception_v3.preprocess_input(pixels.numpy().astype("float32"))
        theirs = torch.cat(
            [torch.from_numpy(keras.ops.convert_to_numpy(model(part)).copy()) for part in (array[:8], array[8:])]
        )
        ours = converted.network.features(inputs)
    assert ours.shape == (16, 2048)
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert ours.std(0).max() > 0.01  # different cells look different to it


def test_they_come_back_bit_for_bit(converted: Conversion, tmp_path: Path) -> None:
    export(converted.network, converted.manifest, "keras", tmp_path / "back.h5")
    assert_same_bits(converted.network.state_dict(), convert(tmp_path / "back.h5").network.state_dict())
    theirs, back = read(real_weights()).tensors, read(tmp_path / "back.h5").tensors
    assert {value.numpy().tobytes() for value in back.values()} == {
        value.numpy().tobytes() for value in theirs.values()
    }
